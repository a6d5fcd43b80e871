"""Models that leave: saved into a folder of their own, opened from it or from the Hugging Face hub, and sent there."""

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from latentseg.config import Config
from latentseg.console import console
from latentseg.errors import RunError, UserError
from latentseg.inference.card import card
from latentseg.models.segmenter import Segmenter
from latentseg.presets import check_config, dump_config
from latentseg.runs.checkpoints import Checkpoints, module_tensors, write_atomically
from latentseg.runs.folder import Run, class_list, open_run
from latentseg.runs.place import SAVED

FILES = (SAVED, "config.yaml", "classes.json", "README.md")
"""What a saved model consists of."""
_PLACES = ("root", "labeled", "unlabeled", "train_list", "pairs", "color_map")
"""Options of `data` that may name a place on a machine."""
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")


class Shared:
    """What a `Model` does to be used elsewhere, by the names that Hugging Face's libraries have for it."""

    run: Run
    segmenter: Segmenter
    step: int

    @classmethod
    def open(cls, run: str | Path | Run, checkpoint: str = "last", overrides: list[str] | tuple[str, ...] = ()) -> Self:
        """Load a model from a folder."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path, runs: Sequence[str | Path] = ()) -> Path:
        """Save what it takes to use the model: weights (safetensors), configuration, classes, and a model card.

        The folder can be used as the RUN of every verb but a training that goes on. No path of this machine is in it.

        Args:
            folder: A new or an empty one.
            runs: Further run folders that differ in the seed alone: the card tells the spread of their last scores.

        Returns:
            The folder.

        Raises:
            RunError: The folder holds something, or cannot be written, or one of `runs` is no run or has other options.
        """
        folder = Path(folder)
        others = [_other(self.run, run) for run in runs]
        try:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise RunError(f"{folder} is not empty: name a new folder for the model")
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot create {folder}: {error.strerror}") from error
        title = folder.resolve().name
        text = card(self.run, self.step, self.segmenter.num_latent, title, others)
        write_atomically(folder / "config.yaml", dump_config(portable(self.run.config)).encode())
        write_atomically(folder / "classes.json", json.dumps(class_list(self.run), indent=1).encode())
        write_atomically(folder / "README.md", text.encode())
        Checkpoints(folder).save_alone(SAVED, self.step, module_tensors("segmenter", self.segmenter))
        return folder

    @classmethod
    def from_pretrained(cls, source: str | Path, overrides: Sequence[str] = (), revision: str | None = None) -> Self:
        """Open what `save_pretrained` or `push_to_hub` left; or any run folder.

        Args:
            source: A folder; or a repository of the Hugging Face hub, such as `name/streets`.
            overrides: `key=value`, as for `open`.
            revision: Branch, tag or commit of the repository.

        Raises:
            RunError: There is no such folder, and the repository cannot be fetched.
            UserError: huggingface_hub is missing.
        """
        if Path(source).is_dir():
            return cls.open(source, overrides=list(overrides))
        if not _REPOSITORY.fullmatch(str(source)):
            raise RunError(f"{source} is neither a folder nor a repository of the hub, such as name/streets")
        hub = _hub()
        try:
            folder = hub.snapshot_download(str(source), revision=revision, allow_patterns=list(FILES))
        except Exception as error:  # clients of the net raise what they like
            raise RunError(
                f"{source} is no folder here, and cannot be fetched from the hub: {_first(error)}; "
                f"offline, name a folder that Model.save_pretrained made"
            ) from error
        return cls.open(folder, overrides=list(overrides))

    def push_to_hub(
        self, repo_id: str, private: bool = False, runs: Sequence[str | Path] = (), message: str = "Upload a model"
    ) -> str:
        """Send the model to the Hugging Face hub, as whoever is logged in there (`hf auth login`).

        A model card that is there already stays as it is: it may have been edited.

        Args:
            repo_id: The repository, such as `name/streets`; made if it does not exist.
            private: Whether a new one is seen by its owner alone.
            runs: As for `save_pretrained`.
            message: Of the commit.

        Returns:
            The address of the repository.

        Raises:
            RunError: The hub cannot be reached, or refuses.
            UserError: huggingface_hub is missing, or the name is none.
        """
        if not _REPOSITORY.fullmatch(repo_id):
            raise UserError(f"{repo_id!r} is no name of a repository, such as name/streets")
        api = _hub().HfApi()
        with tempfile.TemporaryDirectory() as place:
            folder = self.save_pretrained(Path(place) / repo_id.rpartition("/")[2], runs)
            try:
                address = str(api.create_repo(repo_id, private=private, exist_ok=True))
                has_card = api.file_exists(repo_id, "README.md")
                left = ["README.md"] if has_card else []
                api.upload_folder(
                    repo_id=repo_id, folder_path=str(folder), commit_message=message, ignore_patterns=left
                )
            except Exception as error:  # clients of the net raise what they like
                raise RunError(f"{repo_id} cannot be sent to the hub: {_first(error)}") from error
        if has_card:
            text = f"note: the model card of {repo_id} was left as it is there"
            console.print(text, style="yellow", markup=False, highlight=False)
        return address


def portable(config: Config) -> Config:
    """The configuration without places on this machine: of their paths the last name stays."""
    values = config.model_dump(mode="json")
    data = values["data"]
    for name in _PLACES:
        data[name] = _placeless(data[name])
    data["root"] = Path(data["root"]).name if data["root"] else None
    values["model"]["weights"] = _placeless(values["model"]["weights"])
    values["cache_folder"] = None
    return check_config(values, "the saved configuration")


def _placeless(value: Any) -> Any:
    if isinstance(value, list):
        return [_placeless(one) for one in value]
    if isinstance(value, str) and (value.startswith(("/", "~")) or ".." in Path(value).parts):
        return Path(value).name
    return value


def _other(run: Run, folder: str | Path) -> tuple[Run, int]:
    """Another run that differs in the seed alone, and its last step."""
    other = open_run(folder)
    ours, theirs = (portable(one.config).model_copy(update={"seed": 0}) for one in (run, other))
    if other.classes != run.classes or _trained(ours) != _trained(theirs):
        raise RunError(f"{folder} differs from {run.folder} in more than the seed: their spread would mean nothing")
    entry = other.checkpoints.last()
    if entry is None:
        raise RunError(f"{folder} has no checkpoint yet")
    return other, entry.step


def _trained(config: Config) -> dict[str, Any]:
    data = config.data.model_copy(update={"split_seed": None})
    return config.model_copy(update={"data": data}).model_dump(exclude={"device", "threads", "workers", "devices"})


def _hub() -> Any:
    try:
        import huggingface_hub  # noqa: PLC0415 - an extra, though timm brings it
    except ImportError as error:
        raise UserError("the hub needs huggingface_hub: pip install 'latentseg[hub]'") from error
    return huggingface_hub


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
