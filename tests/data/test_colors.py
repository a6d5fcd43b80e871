"""Maps from the colours of masks to classes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentseg.config import DataConfig
from latentseg.data.colors import color_classes, color_entries, voc_color
from latentseg.data.datasets import open_dataset
from latentseg.data.masks import pack
from latentseg.errors import DataError, UserError

CLASSES = ("road", "traffic light", "car")
MEANT = {(128, 64, 128): 0, (250, 170, 30): 1, (0, 0, 142): 2, (0, 0, 0): 255}
FORMS = {
    "camvid.txt": "128 64 128\troad\n250 170 30\t\ttraffic light\n0 0 142\tcar\n0 0 0\tVoid\n",
    "names first.txt": "# names\nroad 128 64 128\ntraffic light: 250,170,30\ncar 0 0 142\nvoid 0 0 0\n",
    "heads.csv": "name,r,g,b\nroad,128,64,128\ntraffic light,250,170,30\ncar,0,0,142\nvoid,0,0,0\n",
    "numbers.csv": "id,r,g,b\n0,128,64,128\n1,250,170,30\n2,0,0,142\n255,0,0,0\n",
    "hex.csv": "class,color\nroad,#804080\ntraffic light,#FAAA1E\ncar,#00008e\nvoid,#000000\n",
    "hex first.txt": "#804080 road\n#faaa1e 1\n#00008e 2\n#000000 255\n",
    "object.json": '{"road": "#804080", "traffic light": [250, 170, 30], "car": "0, 0, 142", "255": [0, 0, 0]}',
    "list.json": '[{"name": "road", "color": [128, 64, 128]}, {"id": 1, "color": "#faaa1e"}, '
    '{"label": "car", "rgb": [0, 0, 142]}, {"name": "none", "hex": "#000000"}]',
}


def read(name: str, root: Path | None = None) -> dict[int, int]:
    return color_classes(name, root, {}, CLASSES, {0: 0, 1: 1, 2: 2, 255: 255})


@pytest.mark.parametrize("name", FORMS)
def test_every_form_says_the_same(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FORMS[name])
    expected = {pack(color): number for color, number in MEANT.items()}
    assert read(str(tmp_path / name)) == read(name, tmp_path) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"cannot be understood \(nothing in it\).*128 64 128 road"),
        ("128 64 128\n", r"cannot be understood \(128 64 128\)"),
        ("road 300 0 0\n", "cannot be understood"),
        ("0 128 64 128\n", "cannot be understood.*after a number write the colour as #rrggbb"),
        ("1 2 3 road\n1 2 3 car\n", r"names a colour twice \(\(1, 2, 3\)\)"),
        ("1 2 3 road\n4 5 6 Car\n", r"without a colour for some classes \(traffic light, car\)"),
        ("#010203 road\n#040506 77\n", r"a number that is no mask value \(77\)"),
    ],
)
def test_what_cannot_be_understood(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read(str(tmp_path / "map.txt"))


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "3", '{"road": 4}', "[4]"])
def test_json_that_is_no_map(text: str, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(DataError, match="a colour map that"):
        read(str(tmp_path / "map.json"))
    with pytest.raises(UserError, match="absent"):
        read("absent.json", tmp_path)


def color_set(folder_set: Callable[..., Path]) -> tuple[Path, np.ndarray[Any, Any], dict[str, Any]]:
    """A data set with one colour mask; the ids that it shows; the options that do not depend on colours."""
    root = folder_set(train=1)
    ids = np.random.default_rng(0).integers(0, 3, (12, 16))
    ids[0, :4] = 255
    table = np.zeros((256, 3), np.uint8)
    for color, number in MEANT.items():
        table[number] = color
    Image.fromarray(table[ids]).save(root / "masks/train/00.png")
    (root / "map.txt").write_text(FORMS["camvid.txt"])
    return root, ids, {"root": str(root), "classes": list(CLASSES)}


def test_colour_masks_become_ids(folder_set: Callable[..., Path]) -> None:
    root, ids, options = color_set(folder_set)
    dataset = open_dataset(DataConfig(**options, color_map="map.txt"))
    item = dataset.items("train")[0]
    np.testing.assert_array_equal(dataset.read_targets(item), ids)
    np.testing.assert_array_equal(dataset.read_pair(item)[1], ids)
    assert dataset.palette.tolist() == [list(color) for color in [*MEANT][:3]]
    with pytest.raises(DataError, match=r"00\.png: a mask that is a colour image .*data\.color_map: a file of lines"):
        open_dataset(DataConfig(**options)).read_targets(item)
    Image.new("RGB", (16, 12), (1, 2, 3)).save(root / "masks/train/00.png")
    with pytest.raises(DataError, match=r"colours that data.color_map=map.txt lacks \(#010203 \(192 pixels\)\); add"):
        dataset.read_targets(item)


def test_numbers_in_a_colour_map_go_through_the_class_map(folder_set: Callable[..., Path]) -> None:
    root, ids, _ = color_set(folder_set)
    (root / "numbers.txt").write_text("#804080 40\n#faaa1e 50\n#00008e 50\n#000000 ignore\n")
    config = DataConfig(root=str(root), classes=["a", "b"], class_map={40: 1, 50: 0}, color_map="numbers.txt")
    dataset = open_dataset(config)
    expected = np.where(ids == 255, 255, (ids == 0).astype(int))
    np.testing.assert_array_equal(dataset.read_targets(dataset.items("train")[0]), expected)


def test_palette_means_the_colours_of_the_layout(folder_set: Callable[..., Path]) -> None:
    root = folder_set(train=1)
    ids = np.arange(12 * 16).reshape(12, 16) % 4
    ids[ids == 3] = 255
    colors = np.array([voc_color(value) for value in range(256)], np.uint8)
    Image.fromarray(colors[ids]).save(root / "masks/train/00.png")
    dataset = open_dataset(DataConfig(root=str(root), color_map="palette"))
    np.testing.assert_array_equal(dataset.read_targets(dataset.items("train")[0]), ids)


def test_index_reads_ids_whatever_their_colours(folder_set: Callable[..., Path]) -> None:
    root = str(folder_set(train=1))
    one, other = (open_dataset(DataConfig(root=root, color_map=name)) for name in ("index", None))
    item = one.items("train")[0]
    np.testing.assert_array_equal(one.read_targets(item), other.read_targets(item))


def test_a_label_map_of_voc_may_have_parts_and_actions(tmp_path: Path) -> None:
    path = tmp_path / "labelmap.txt"
    path.write_text(
        "# label:color_rgb:parts:actions\nperson:0,0,255:hand,foot:jumping,running\ntraffic light:1,2,3::\n"
    )
    assert color_entries(path) == [((0, 0, 255), "person"), ((1, 2, 3), "traffic light")]
