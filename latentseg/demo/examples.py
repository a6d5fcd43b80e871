"""Photographs to begin with: of the run's own data where that is there, else drawn scenes."""

from pathlib import Path

from PIL import Image

from latentseg.data.datasets import open_dataset
from latentseg.data.images import resized
from latentseg.errors import UserError
from latentseg.inference.pictures import spread
from latentseg.runs.folder import Run
from latentseg.scenes.draw import draw_scene

EXAMPLES = 4
LONGEST = 1280
"""Of an example's sides, in pixels."""


def write_examples(run: Run, folder: Path) -> list[Path]:
    """Write a few images without labels of a run as files of names of our own.

    Args:
        run: An open run, whose data set may be gone.
        folder: A folder for them, which exists.
    """
    try:
        pictures = _unlabeled(run)
    except (UserError, OSError):
        pictures = [Image.fromarray(draw_scene(7, index, 480, 640)[0]) for index in range(2)]
    paths = [folder / f"example-{number}.png" for number in range(1, len(pictures) + 1)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    return paths


def _unlabeled(run: Run) -> list[Image.Image]:
    """Images of the training split, those without labels first.

    Raises:
        UserError: The data set is not there.
        OSError: The run does not tell which images it took.
    """
    dataset = open_dataset(run.config.data.model_copy(update={"resize": 1.0}))
    listed = (run.folder / "split" / "unlabeled.txt").read_text(encoding="utf-8").splitlines()
    wanted = set(listed)
    items = [item for item in dataset.items("train") if item.id in wanted] or dataset.items("train")
    found = []
    for index in spread(len(items), EXAMPLES):
        pixels = dataset.read_image(items[index])
        found.append(Image.fromarray(resized(pixels, min(1.0, LONGEST / max(pixels.shape[:2])))))
    return found
