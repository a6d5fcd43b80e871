"""What to label next: images ranked by what their labels would teach, with the reasons and a contact sheet.

`look` takes the figures of each image, `signals` are their equations, `ranking` chooses, `words` says why, `sheet`
draws. docs/suggest.md explains it to users.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentseg.console import console
from latentseg.data.datasets import Dataset, Item
from latentseg.data.files import is_file
from latentseg.data.images import read_rgb
from latentseg.data.lists import read_list
from latentseg.engine import full_speed
from latentseg.errors import DataError, RunError, UserError
from latentseg.inference.jobs import grouped
from latentseg.inference.model import Model, open_data
from latentseg.inference.pictures import check_writable, small_png, write_whole
from latentseg.inference.stream import Pixels
from latentseg.inference.tiles import no_memory
from latentseg.runs.folder import Run
from latentseg.runs.place import free_path
from latentseg.suggest.candidates import find_images, without_known
from latentseg.suggest.look import Looker
from latentseg.suggest.ranking import WAYS, Known, choose
from latentseg.suggest.result import FIGURES, LIST, SHEET, Suggestion
from latentseg.suggest.sheet import card, contact_sheet
from latentseg.suggest.words import reasons

ON_SHEET = 60
"""Images on the contact sheet, at most: the best ones."""
BY = "all"
"""The way that is taken if none is named."""


def suggest(
    run: str | Path,
    paths: list[Path],
    count: int = 20,
    out: Path | None = None,
    checkpoint: str = "last",
    by: str = BY,
    overrides: list[str] | tuple[str, ...] = (),
) -> Suggestion:
    """Rank images without labels and write OUT/suggest.txt, OUT/suggest.json and OUT/suggest.png.

    A few images are in memory at a time, and a few kB of each that was looked at. Nothing is overwritten.

    Args:
        run: The run folder.
        paths: Folders of images (searched recursively), and images. Those that the run has labels of, or scores, are
            left out.
        count: How many to choose; all, if there are fewer.
        out: Folder of the results; `suggest` in the run folder, or the first free suggest-2 and so on, if None.
        checkpoint: last, or best (by the validation during training).
        by: One of `ranking.WAYS`.
        overrides: `key=value` for data.root, device, threads or inference.*.

    Raises:
        UserError: Bad usage; no image is left; a result exists. All of it before an image is looked at.
        DataError: No image can be read.
    """
    if by not in WAYS:
        raise UserError(f"--by {by}: choose one of {', '.join(WAYS)}")
    if count < 1:
        raise UserError(f"-n {count}: choose at least one image")
    images = find_images(paths)
    model = Model.open(run, checkpoint, overrides)
    folder = _free_folder(model.run, out)
    looker = Looker.open(model, checkpoint)
    _check_way(looker, by)
    dataset, labeled = _labeled(model.run)
    candidates = without_known(images, dataset, labeled)
    with full_speed():
        found = rank(looker, candidates.images, dataset, labeled, count, by, candidates.left_out)
        _write(found, folder, model, looker, by)
    return replace(found, folder=folder)


def rank(
    looker: Looker,
    images: list[Path],
    dataset: Dataset | None,
    labeled: list[Item],
    count: int,
    by: str,
    left_out: dict[str, int],
) -> Suggestion:
    """Look at images and choose some of them; nothing is written.

    Args:
        looker: A model.
        images: To choose from.
        dataset: Reads the labelled ones; None if there are none.
        labeled: Images with labels.
        count: How many to choose.
        by: One of `ranking.WAYS`.
        left_out: As `Candidates`; images that cannot be read are added.

    Raises:
        DataError: No image can be read.
    """
    failures: dict[Path, UserError] = {}

    def read(path: Path) -> Pixels | None:
        try:
            return looker.model.ready(read_rgb(path, looker.model.run.config.data.bits), None)[0]
        except MemoryError:
            failures[path] = no_memory(path, "to read it")
        except UserError as error:
            failures[path] = error
        return None

    known = looker.known(labeled, dataset.read_pair) if dataset else Known.nothing(len(looker.model.classes))
    pool, kept, doubts = looker.pool(images, read)
    if failures:
        causes = grouped({path: failures[path] for path in images if path in failures})
        if not kept:
            raise DataError(f"none of the {len(images)} images can be read", f"replace them:\n{causes}")
        _note(f"{len(failures)} of {len(images)} images cannot be read and are left out:\n{causes}")
        left_out = left_out | {"that cannot be read": len(failures)}
    if count > len(kept):
        _note(f"-n {count}, but there are {len(kept)} images to choose from: all of them are ranked")
    picks = choose(pool, known, count, WAYS[by], looker.model.run.config.seed)
    classes = looker.model.classes
    why = [reasons(pick, pool, known, doubts[pick.index], classes, by) for pick in picks]
    return Suggestion([kept[pick.index] for pick in picks], picks, why, pool, known, classes, left_out)


def _note(text: str) -> None:
    console.print(f"note: {text}", style="yellow", markup=False, highlight=False)


def _free_folder(run: Run, out: Path | None) -> Path:
    """The folder of the results, which may be there, but has none of them.

    Raises:
        UserError: One of the files exists, or nobody may write there.
    """
    folder = out or free_path(run.folder / "suggest")
    check_writable(folder)
    for name in (LIST, FIGURES, SHEET):
        if is_file(folder / name):
            raise UserError(f"{folder / name} exists and is not overwritten: name another folder with --out")
    return folder


def _check_way(looker: Looker, by: str) -> None:
    """Refuse a way whose only signal the run does not have."""
    weights = WAYS[by].weights
    if weights and not {*weights} & {*looker.signals, "rare"}:
        method = looker.model.run.config.method.name
        what = {"branches": "latent branch", "teacher": "teacher"}.get(by, by)
        able = [name for name, way in WAYS.items() if not way.weights or {*way.weights} & {*looker.signals, "rare"}]
        raise UserError(f"--by {by} needs a {what}, which a run of {method} does not have: choose {', '.join(able)}")


def _labeled(run: Run) -> tuple[Dataset | None, list[Item]]:
    """The data set of a run and its labelled images; none, with a note, where they are not there any more.

    Raises:
        RunError: The run folder lacks the list of them.
    """
    path = run.folder / "split" / "labeled.txt"
    if not is_file(path):
        raise RunError(f"{path} is gone: the run folder is incomplete")
    try:
        dataset = open_data(run)
        return dataset, read_list(dataset, path)
    except UserError as error:
        _note(
            f"the labelled images of the run are not here, so none is left out, and what is like them may be chosen "
            f"(--set data.root=FOLDER says where they are): {error}"
        )
        return None, []


def _write(found: Suggestion, folder: Path, model: Model, looker: Looker, by: str) -> None:
    """Write the figures, the list and the contact sheet of the best ones."""
    write_whole(folder / FIGURES, found.to_json(model.run, by, model.step).encode())
    write_whole(folder / LIST, "".join(f"{path}\n" for path in found.images).encode())
    cards, texts = list[NDArray[np.uint8]](), list[list[str]]()
    for rank_, (path, why) in enumerate(zip(found.images[:ON_SHEET], found.reasons, strict=False), start=1):
        pixels = model.ready(read_rgb(path, model.run.config.data.bits), None)[0]
        cards.append(card(model, pixels, looker.probs))
        texts.append([f"{rank_}. {path}", *why])
    if len(found.images) > ON_SHEET:
        _note(f"the contact sheet shows the first {ON_SHEET} of {len(found.images)} images")
    write_whole(folder / SHEET, small_png(contact_sheet(cards, texts, model)))
