"""Masks whose counts are known by construction."""

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from latentseg.config import DataConfig
from latentseg.data.classes import MaskCounts, binary_notes, class_figures, class_notes, class_table, mask_notes

NAMES = ("ground", "disc", "bar")


def counts(*masks: list[list[int]]) -> MaskCounts:
    found = MaskCounts()
    for mask in masks:
        found.add(MaskCounts.of(np.array(mask, np.uint8)))
    return found


def test_pixels_and_images_are_counted() -> None:
    found = counts([[0, 0, 1], [0, 255, 1]], [[0, 0, 0]])
    assert found.masks == 2
    assert (found.pixels[[0, 1, 2, 255]].tolist(), found.images[[0, 1, 2, 255]].tolist()) == (
        [6, 2, 0, 1],
        [2, 1, 0, 1],
    )
    assert found.values == {0, 1, 255}
    table = class_table(NAMES, {"labeled": found, "val": counts([[2, 2]])})
    assert [column.header for column in table.columns] == ["class", "labeled, 2 masks", "val, 1 masks"]
    cells = [list(map(str, column.cells)) for column in table.columns]
    assert cells == [
        ["ground", "disc", "bar", "no label"],
        ["6 (2)", "2 (1)", "0 (0)", "1 (1)"],
        ["0 (0)", "0 (0)", "2 (1)", "0 (0)"],
    ]
    figures = class_figures(NAMES, {"labeled": found})
    assert figures == {
        "labeled": {
            "ground": {"pixels": 6, "images": 2},
            "disc": {"pixels": 2, "images": 1},
            "bar": {"pixels": 0, "images": 0},
        }
    }
    wide = MaskCounts.of(np.array([[0, 300, -1, 7, 255, 256]], np.int32))
    assert wide.values == {0, 7, 255}


def test_classes_without_pixels_are_named() -> None:
    whole = counts([[0, 1, 2]])
    assert class_notes(NAMES, {"labeled": whole, "val": counts([[0]])}) == []
    assert class_notes(NAMES, {"val": whole}) == []  # nothing is known of the labelled ones
    splits = {"labeled": counts([[0, 1]], [[1, 1]]), "val": whole, "test": counts([[0]])}
    (note,) = class_notes(NAMES, splits)
    assert note.startswith("no labelled pixel of class bar in the 2 labelled images, but in val: ")
    (note,) = class_notes(NAMES, {"labeled": counts([[0, 1, 255]]), "val": counts([[0]])})
    assert note.startswith("class bar in no mask that was read (1 labelled, 1 of val): ")
    notes = class_notes(NAMES, {"labeled": counts([[0, 255]])})
    assert notes[0].startswith("classes disc, bar in no mask that was read (1 labelled): ")
    assert notes[1] == "all labelled pixels are of one class, ground: there is nothing to tell apart"


def test_a_split_without_a_label_is_noted() -> None:
    (note,) = class_notes(NAMES, {"labeled": counts([[0, 1, 2]]), "val": counts([[255]]), "test": counts([[0, 255]])})
    assert note == "no pixel of val has a label: there is nothing to score"


def test_values_that_want_a_map_are_recognised() -> None:
    config = DataConfig()
    (note,) = mask_notes(config, 2, counts([[0, 255]]))
    assert note.endswith("'data.class_map={0: 0, 255: 1}'")
    for found, classes in (
        (counts([[0, 1, 255]]), 2),
        (counts([[0, 255]]), 3),
        (counts([[0]]), 2),
        (counts([[255]]), 2),
    ):
        assert mask_notes(config, classes, found) == []
    (note,) = mask_notes(config, 3, counts([[0, 1, 3]]))
    assert note.endswith("'data.class_map={1: 0, 2: 1, 3: 2}'")
    for values, mapped in (
        ([0, 128, 255], "{0: 0, 128: 1, 255: 2}"),
        ([0, 10, 20], "{0: 0, 10: 1, 20: 2}"),
        ([0, 1, 255], "{0: 0, 1: 1, 255: 2}"),
    ):
        (note,) = mask_notes(config, 3, counts([values]))
        assert f"masks hold the values {', '.join(map(str, values))} alone, as many as there are classes" in note
        assert note.endswith(f"in their order, say so by 'data.class_map={mapped}'")
        assert ("and 255 means ignored" in note) == (255 in values)
    (note,) = mask_notes(config, 2, counts([[0]]), {0, 26001})
    assert note.endswith("'data.class_map={0: 0, 26001: 1}'")
    assert mask_notes(config, 3, counts([[0, 1]]), {-1, 0, 1}) == []  # a negative value is no class
    assert mask_notes(config, 3, counts([[0, 1, 4, 5]])) == []
    assert mask_notes(config, 4, counts([[0, 2, 3, 255]])) == []  # ids, one of which does not occur
    assert mask_notes(DataConfig(class_map={0: 0}), 2, counts([[0, 255]])) == []
    assert mask_notes(DataConfig(kind="voc"), 2, counts([[0, 255]])) == []


def test_masks_of_0_and_255_beside_others_of_0_and_1_are_noted() -> None:
    mixed = {"labeled": counts([[0, 1]]), "val": counts([[0, 255]])}
    (note,) = binary_notes(DataConfig(), 2, mixed)
    assert note.startswith("masks of val hold 0 and 255 alone, and 255 means ignored; those of labeled hold 1: ")
    assert note.endswith("'data.class_map={0: 0, 1: 1, 255: 1}'")
    assert binary_notes(DataConfig(), 3, mixed) == binary_notes(DataConfig(class_map={0: 0}), 2, mixed) == []
    for labeled in ([0, 255], [0, 1, 255]):  # as one set; 255 is no label in both
        assert binary_notes(DataConfig(), 2, mixed | {"labeled": counts([labeled])}) == []


def test_names_are_shown_as_they_are() -> None:
    """[red] would be a style, [/x] an error."""
    console = Console(width=100)
    with console.capture() as capture:
        console.print(class_table(["[red]a[/red]", "[/x]"], {"labeled": counts([[0, 1]])}))
    shown = capture.get()
    assert "[red]a[/red]" in shown
    assert "[/x]" in shown


@pytest.mark.parametrize("values", [[0, 2, 6, 10], [0, 255]])
def test_masks_that_were_resized_smoothly_are_suspected(values: list[int]) -> None:
    yy, xx = np.mgrid[:96, :96]
    inner = (yy - 40) ** 2 + (xx - 50) ** 2 < 900
    ids = np.where(inner, len(values) - 1, np.where(xx < 20, 1, 0))
    image = Image.fromarray(np.array(values, np.uint8)[ids])
    for how, suspected in ((Image.Resampling.BILINEAR, True), (Image.Resampling.NEAREST, False)):
        found = MaskCounts.of(np.array(image.resize((41, 41), how)))
        assert bool(found.resized_smoothly()) == suspected
        assert any("resized smoothly" in note for note in mask_notes(DataConfig(), 2, found)) == suspected
        assert not set(found.resized_smoothly()) & set(np.unique(np.array(image)).tolist())


def test_thin_things_and_random_masks_are_not_suspected() -> None:
    mask = np.zeros((60, 60), np.uint8)
    for c, x in enumerate(range(2, 50, 6), start=1):
        mask[:, x] = c  # poles, one pixel wide
    assert MaskCounts.of(mask).resized_smoothly() == []
    noise = np.random.default_rng(0).integers(0, 11, (60, 60)).astype(np.uint8)
    assert MaskCounts.of(noise).resized_smoothly() == []
    mask[:, 52:] = 20
    mask[:, 50], mask[:, 51] = 12, 16  # two classes on a slope may be chance
    assert MaskCounts.of(mask).resized_smoothly() == []


@pytest.mark.parametrize(("slopes", "rows", "suspected"), [(2, 60, False), (3, 10, True), (3, 9, False), (9, 10, True)])
def test_few_values_on_slopes_or_few_pixels_of_them_may_be_chance(slopes: int, rows: int, suspected: bool) -> None:
    ramp = np.repeat([[0, 0, *range(1, slopes + 1), 99, 99]], rows, axis=0).astype(np.uint8)
    notes = mask_notes(DataConfig(), 100, MaskCounts.of(ramp))
    shown = "1, 2, 3 lie" if slopes == 3 else "1, 2, 3, 4, 5, 6, 7, 8, ... lie"
    assert [shown in note for note in notes] == [True] * suspected


def test_a_slope_is_between_a_lower_and_a_higher_neighbour() -> None:
    """Along a row: 3 lies between 1 and 9; the plateaus, the peak and the hollow do not."""
    found = counts([[0, 5, 5, 9, 1, 3, 9, 9, 7, 7, 0, 0]])
    assert np.flatnonzero(found.between).tolist() == [3]
    down = counts([[9], [6], [2], [2], [8], [8]])
    assert np.flatnonzero(down.between).tolist() == [6]


def test_values_beyond_a_byte_are_not_counted_as_others() -> None:
    wide = MaskCounts.of(np.array([[-1, 0, 1, 256, 300, 400, 2, 3]], np.int32))
    assert wide.values == {0, 1, 2, 3}
    assert wide.between.shape == (256,)
    assert wide.between[0] == 1


def test_long_lists_are_cut() -> None:
    names = tuple("abcdefgh")
    (note,) = class_notes(names, {"labeled": counts([[0, 1]])})
    assert note.startswith("classes c, d, e, f, g and 1 more in no mask")
    (note,) = class_notes(names[:7], {"labeled": counts([[0, 1]])})
    assert note.startswith("classes c, d, e, f, g in no mask")
