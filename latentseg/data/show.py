"""What a data set looks like: sizes of images, pixels per class, and which classes a draw of labels covers."""

from collections import Counter
from fractions import Fraction

from rich.table import Table
from rich.text import Text

from latentseg.config import Config
from latentseg.console import track
from latentseg.data.classes import MaskCounts, class_table
from latentseg.data.datasets import Dataset, Item, open_dataset
from latentseg.data.images import IGNORE_INDEX
from latentseg.data.pairs import picture_size
from latentseg.data.splits import draw_split

DRAWS = ("1/100", "1/30", "1/16", "1/8", "1/4", "all")
"""What `data.labeled` could be."""


def show_set(config: Config) -> list[Table]:
    """Tables of a data set: images and their sizes, pixels per class, draws of labels and the classes they cover.

    Raises:
        DataError: A file cannot be read.
    """
    dataset = open_dataset(config.data)
    counts: dict[str, MaskCounts] = {}
    values: dict[Item, set[int]] = {}
    for split in dataset.splits:
        counts[split] = MaskCounts()
        labeled = [item for item in dataset.items(split) if item.has_labels]
        for item in track(labeled, f"reading masks of {split}"):
            found = MaskCounts.of(dataset.read_targets(item, resized=False))
            values[item] = found.values - {IGNORE_INDEX}
            counts[split].add(found)
    return [_images(dataset), class_table(dataset.classes, counts), _draws(dataset, config, values)]


def _images(dataset: Dataset) -> Table:
    table = Table(title=Text(f"images of {dataset.root or dataset.config.kind}"))
    for head in ("split", "images", "with mask", "width x height", "median"):
        table.add_column(head, justify="left" if head == "split" else "right")
    for split in dataset.splits:
        items = dataset.items(split)
        sizes = Counter(_size(dataset, item) for item in items)
        widths, heights = (sorted(size[side] for size in sizes.elements()) for side in (0, 1))
        least, most = (choose(sizes, key=lambda size: size[0] * size[1]) for choose in (min, max))
        median = widths[len(widths) // 2], heights[len(heights) // 2]
        span = _text(least) if least == most else f"{_text(least)} to {_text(most)}, {len(sizes)} sizes"
        labeled = sum(item.has_labels for item in items)
        table.add_row(split, f"{len(items):,}", f"{labeled:,}", span, _text(median))
    return table


def _size(dataset: Dataset, item: Item) -> tuple[int, int]:
    scenes = dataset.config.scenes
    return picture_size(item.image) if item.image else (scenes.width, scenes.height)


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _draws(dataset: Dataset, config: Config, values: dict[Item, set[int]]) -> Table:
    """Draws of the run's seed: their images, and the classes of the training masks that they lack."""
    table = Table(title=f"classes that a draw covers, seed {config.seed}")
    for head in ("data.labeled", "images", "classes", "not covered"):
        table.add_column(head, justify="right" if head in {"images", "classes"} else "left")
    train = dataset.items("train")
    there = set[int]().union(*(values.get(item, set()) for item in train))
    for share in DRAWS:
        if share != "all" and len(train) * Fraction(share) < 1:
            continue
        labeled = draw_split(dataset, config.data.model_copy(update={"labeled": share}), config.seed).labeled
        covered = set[int]().union(*(values.get(item, set()) for item in labeled))
        lacking = ", ".join(dataset.classes[c] for c in sorted(there - covered))
        table.add_row(share, f"{len(labeled):,}", f"{len(covered)} of {len(dataset.classes)}", Text(lacking))
    return table
