"""Run the commands of the documentation in a folder of their own, with tiny data and few steps: `make docs-check`.

A page is read as a user reads it: its blocks in their order, in one folder. What a page takes for granted (photos, a
run, a video) is made before. The verbs run in this process, so PyTorch starts once.
"""

import contextlib
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from latentseg.cli import app

DOCS = Path(__file__).parents[1]
PAGES = (
    *("quickstart", "your_photos", "latent_classes", "labelling", "suggest", "sweeps"),
    *("low_memory", "imbalance", "unusual_images", "video", "formats"),
)
"""Pages whose commands can be run with what `prepare` makes."""
NOT_RUN = ("make", "python", "tensorboard", "pip")
"""Commands of other programs."""
ELSEWHERE = ("CamVid", "VOCdevkit", "runs/voc", "runs/city", "runs/tables", "--get", "--commands")
"""Words of commands that need a data set or a download."""
TINY = ("steps=2", "batch_size=2", "threads=1", "device=cpu", "augment.views=1", "augment.labeled_views=1")
SCENES = ("data.scenes.train=6", "data.scenes.val=2", "data.scenes.test=2", "data.labeled=4", "augment.crop=[96,96]")
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of the code blocks of a page; commands have no language."""
    for indent, language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        yield language, re.sub(f"^{indent}", "", text, flags=re.MULTILINE)


def commands(text: str) -> list[str]:
    """The command lines of a block, continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith(("#", "$", ". "))]


def tiny(line: str) -> list[str] | None:
    """The words after `latentseg`, made small; None for a command that cannot be run here."""
    words = shlex.split(line, comments=True)
    if words[0] in NOT_RUN or any(name in line for name in ELSEWHERE):
        return None
    words = words[1:]
    if "--time" in words:
        del words[words.index("--time") : words.index("--time") + 2]
    if "-n" in words:
        words[words.index("-n") + 1] = "2"
    if words[0] in {"train", "quickstart", "sweep"}:
        drawn = words[0] == "quickstart" or "scenes" in words
        few = ["data.labeled=3", "grid.seed=[0]"] if words[0] == "sweep" else SCENES if drawn else []
        words += [*TINY, *few]
    return words


def run_page(name: str, prepared: Path) -> list[str]:
    """Run the commands and the Python of a page in a copy of a folder.

    Args:
        name: Of the page.
        prepared: What `prepare` made.

    Returns:
        What was run.

    Raises:
        RuntimeError: A command failed.
    """
    done: list[str] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        shutil.copytree(prepared, folder, dirs_exist_ok=True)
        found = list(blocks(DOCS / f"{name}.md"))
        made = re.findall(r"--run (\S+)", "\n".join(text for _, text in found))
        for run in made:
            shutil.rmtree(run, ignore_errors=True)  # the page makes it itself
        for language, text in found:
            done += _run_block(language, text)
    return done


def _run_block(language: str, text: str) -> list[str]:
    if language == "yaml":
        Path("mine.yaml").write_text(text, encoding="utf-8")
    if language == "python":
        exec(compile(text, "block", "exec"), {})  # noqa: S102 - our own pages
        return [text]
    if language:
        return []
    lines = [(line, words) for line in commands(text) if (words := tiny(line)) is not None]
    for line, words in lines:
        try:
            app(words, standalone_mode=False)
        except (Exception, SystemExit) as error:
            raise RuntimeError(f"{line}: {error}") from error
    return [line for line, _ in lines]


def prepare(folder: Path) -> None:
    """Make what the pages take for granted: photos, of which some are labelled, a run, a video."""
    with contextlib.chdir(folder):
        sizes = ("data.scenes.train=12", "data.scenes.val=2", "data.scenes.test=1")
        app(["data", "scenes", "--out", "photos", *sizes], standalone_mode=False)
        for mask in sorted(Path("photos/labels/train").iterdir())[6:]:
            mask.unlink()
        images = sorted(Path("photos/images/train").iterdir())[:7]
        for name in ("unlabelled", "new_photos", "frames"):
            Path(name).mkdir()
            for number, image in enumerate(images[4:]):
                shifted = np.roll(np.asarray(Image.open(image)), 7 * number + len(name), 1)
                Image.fromarray(shifted).save(Path(name) / f"{name}{number}.png")
        first = Image.open(images[0]).convert("RGB")
        first.save("photo.jpg")
        first.save("huge.tif")
        _video(Path("drive.mp4"), np.asarray(first))
        app(["train", "photos", "--run", "runs/photos", *TINY], standalone_mode=False)


def _video(path: Path, pixels: np.ndarray) -> None:
    from fractions import Fraction  # noqa: PLC0415

    from latentseg.inference.video import VideoWriter  # noqa: PLC0415 - PyAV

    with VideoWriter(path, Fraction(5)) as writer:
        for number in range(2):
            writer.add(pixels, Fraction(number, 5))


def main(names: Sequence[str]) -> None:
    """Run the pages that are named, or all."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        prepared = Path(folder, "prepared")
        prepared.mkdir()
        prepare(prepared)
        for name in names or PAGES:
            done = run_page(name, prepared)
            print(f"{name}: {len(done)} commands run")


if __name__ == "__main__":
    main(sys.argv[1:])
