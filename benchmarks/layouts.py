"""Layouts that people really have, made from drawn scenes; and what one command makes of each.

python benchmarks/layouts.py --out /tmp/layouts prints a row of docs/layouts.md for each of them.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentseg.data.colors import CITYSCAPES, voc_color
from latentseg.data.drawn.runs import packed
from latentseg.scenes.draw import CLASSES, PALETTE, draw_scene

Ids = NDArray[np.uint8]
Truth = dict[str, Ids]
"""Class ids by the stem of the image, 255 where there is no label."""
HEIGHT, WIDTH = 96, 160
SPLITS = {"train": 8, "val": 3}
CAR = CLASSES.index("car")


class Scene(NamedTuple):
    """A drawn photograph and its labels."""

    split: str
    name: str
    image: Ids
    ids: Ids


def scenes() -> Iterator[Scene]:
    """A few of them, the same each time."""
    for split, number in SPLITS.items():
        for i in range(number):
            index = i + 100 * len(split)
            yield Scene(split, f"{split}_{i:03}", *draw_scene(7, index, HEIGHT, WIDTH))


def save(path: Path, pixels: Ids, palette: bool = False) -> Path:
    """Write a picture, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(np.array(PALETTE, np.uint8).tobytes())
    image.save(path)
    return path


def colored(ids: Ids, colors: Any = PALETTE) -> Ids:
    """Labels as they look; no label is black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    return table[ids]


def names(root: Path) -> None:
    """Write classes.txt."""
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))


def beside(root: Path) -> Truth:
    """x.png and x_mask.png in one folder, no split."""
    truth = {}
    for i, (_, _, image, ids) in enumerate(scenes()):
        save(root / f"street_{i:02}.png", image)
        save(root / f"street_{i:02}_mask.png", ids, palette=True)
        truth[f"street_{i:02}"] = ids
    names(root)
    return truth


def parallel(root: Path) -> Truth:
    """photos/DAY/x.jpg and annotations/DAY/x_label.png, no split, no names of classes."""
    truth = {}
    for i, (_, name, image, ids) in enumerate(scenes()):
        save(root / "photos" / f"day{i % 2}" / f"{name}.jpg", image)
        save(root / "annotations" / f"day{i % 2}" / f"{name}_label.png", ids)
        truth[name] = ids
    return truth


def split_first(root: Path) -> Truth:
    """train/images, train/masks, valid/images, valid/masks."""
    truth = {}
    for split, name, image, ids in scenes():
        folder = root / {"train": "train", "val": "valid"}[split]
        save(folder / "images" / f"{name}.png", image)
        save(folder / "masks" / f"{name}.png", ids)
        truth[name] = ids
    names(root)
    return truth


def voc_without_lists(root: Path) -> Truth:
    """JPEGImages and SegmentationClass, no ImageSets."""
    truth = {}
    for _, name, image, ids in scenes():
        save(root / "JPEGImages" / f"{name}.jpg", image)
        save(root / "SegmentationClass" / f"{name}.png", colored(ids, [voc_color(i) for i in range(19)]))
        truth[name] = np.where(ids == 255, 0, ids).astype(np.uint8)  # black is VOC's background
    return truth


def colors_alone(root: Path) -> Truth:
    """images/x.jpg and masks/x.png, which show colours that nothing names."""
    truth = {}
    for _, name, image, ids in scenes():
        save(root / "images" / f"{name}.jpg", image)
        save(root / "masks" / f"{name}.png", colored(ids))
        truth[name] = np.where(ids == 255, 19, ids).astype(np.uint8)  # black, too, is a colour
    return truth


def colors_named(root: Path) -> Truth:
    """CamVid as it is often found: train, train_labels (x_L.png), val, val_labels, class_dict.csv."""
    truth = {}
    for split, name, image, ids in scenes():
        save(root / split / f"{name}.png", image)
        save(root / f"{split}_labels" / f"{name}_L.png", colored(ids))
        truth[name] = ids
    rows = ["name,r,g,b", *(f"{name},{r},{g},{b}" for name, (r, g, b) in zip(CLASSES, PALETTE, strict=True))]
    (root / "class_dict.csv").write_text("\n".join([*rows, "Void,0,0,0"]) + "\n")
    return truth


def binary(root: Path) -> Truth:
    """img/x.jpg and gt/x.png of 0 and 255, no split."""
    truth = {}
    for _, name, image, ids in scenes():
        cars = (ids == CAR).astype(np.uint8)
        save(root / "img" / f"{name}.jpg", image)
        save(root / "gt" / f"{name}.png", cars * 255)
        truth[name] = cars
    return truth


def csv_pairs(root: Path) -> Truth:
    """One folder of files of any names, and pairs.csv."""
    rows, truth = [["image", "mask", "split"]], {}
    for i, (split, _, image, ids) in enumerate(scenes()):
        save(root / "files" / f"{i:03}.png", image)
        save(root / "files" / f"{i + 500:03}.png", ids)
        rows.append([f"files/{i:03}.png", f"files/{i + 500:03}.png", split])
        truth[f"{i:03}"] = ids
    with (root / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    names(root)
    return truth


def cityscapes(root: Path) -> Truth:
    """As it is distributed."""
    label_ids = np.zeros(256, np.uint8)
    label_ids[:19] = [label for label, _ in CITYSCAPES.values()]
    truth = {}
    for split, name, image, ids in scenes():
        save(root / "leftImg8bit" / split / "town" / f"{name}_leftImg8bit.png", image)
        save(root / "gtFine" / split / "town" / f"{name}_gtFine_labelIds.png", label_ids[ids])
        save(root / "gtFine" / split / "town" / f"{name}_gtFine_color.png", colored(ids))
        truth[f"{name}_leftImg8bit"] = ids
    return truth


def coco_instances(root: Path) -> Truth:
    """annotations/instances_train2017.json and train2017/: runs and polygons of vehicles and people, a crowd."""
    from pycocotools import mask as runs  # noqa: PLC0415 - an extra

    trees: dict[str, dict[str, Any]] = {}
    wanted, truth = CLASSES[11:], {}
    categories = [{"id": 10 * (i + 1), "name": name} for i, name in enumerate(wanted)]
    for number, (split, name, image, ids) in enumerate(scenes(), start=1):
        save(root / f"{split}2017" / f"{name}.jpg", image)
        tree = trees.setdefault(split, {"images": [], "annotations": [], "categories": categories})
        tree["images"].append({"id": number, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH})
        known = np.zeros_like(ids)
        known[80:90, 10:60] = 255  # a crowd, painted over by what lies in it
        box = {"counts": _uncompressed(known > 0), "size": [HEIGHT, WIDTH]}
        tree["annotations"].append({"image_id": number, "category_id": 10, "iscrowd": 1, "segmentation": box})
        for i, kind in enumerate(wanted):
            region = ids == CLASSES.index(kind)
            if region.any():
                coded = runs.encode(np.asfortranarray(region.astype(np.uint8)))
                part = {"size": coded["size"], "counts": coded["counts"].decode()}
                tree["annotations"].append({"image_id": number, "category_id": 10 * (i + 1), "segmentation": part})
                known[region] = i + 1
        corners = [[20, 10, 50, 10, 50, 30, 20, 30]]  # on top of all; pixel borders, as COCO's
        tree["annotations"].append({"image_id": number, "category_id": 20, "segmentation": corners})
        known[10:30, 20:50] = 2
        truth[name] = known
    for split, tree in trees.items():
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(tree))
    return truth


def _uncompressed(region: NDArray[np.bool_]) -> list[int]:
    """COCO's runs down the columns, that of zeros first."""
    flat = region.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends, flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


def coco_panoptic(root: Path) -> Truth:
    """annotations/panoptic_train2017.json, its folder of PNG files, and train2017/."""
    trees: dict[str, dict[str, Any]] = {}
    categories = [{"id": 3 * i + 1, "name": name, "isthing": 1} for i, name in enumerate(CLASSES)]
    truth = {}
    for number, (split, name, image, ids) in enumerate(scenes(), start=1):
        save(root / f"{split}2017" / f"{name}.jpg", image)
        segments = np.where(ids == 255, 0, ids.astype(np.int64) * 1000 + 7)
        rgb = np.stack([segments % 256, segments // 256 % 256, segments // 65536], axis=-1).astype(np.uint8)
        save(root / "annotations" / f"panoptic_{split}2017" / f"{name}.png", rgb)
        infos = [{"id": int(c) * 1000 + 7, "category_id": 3 * int(c) + 1} for c in np.unique(ids) if c < 19]
        tree = trees.setdefault(split, {"images": [], "annotations": [], "categories": categories})
        tree["images"].append({"id": number, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH})
        tree["annotations"].append({"image_id": number, "file_name": f"{name}.png", "segments_info": infos})
        truth[name] = ids
    for split, tree in trees.items():
        (root / "annotations" / f"panoptic_{split}2017.json").write_text(json.dumps(tree))
    return truth


def labelme(root: Path) -> Truth:
    """A JSON file of polygons beside each photograph; boxes of four corners, the later on top."""
    truth, kinds = {}, sorted(CLASSES)
    for _, name, image, ids in scenes():
        save(root / f"{name}.jpg", image)
        shapes, known = [], np.zeros_like(ids)
        for c in (c for c in np.unique(ids) if c < 19):
            rows, columns = np.nonzero(ids == c)
            top, bottom, left, right = (int(x) for x in (rows.min(), rows.max(), columns.min(), columns.max()))
            corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
            shapes.append({"label": CLASSES[c], "points": corners, "shape_type": "polygon"})
            known[top : bottom + 1, left : right + 1] = kinds.index(CLASSES[c]) + 1
        tree = {"shapes": shapes, "imagePath": f"{name}.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH}
        (root / f"{name}.json").write_text(json.dumps(tree))
        truth[name] = known
    return truth


def label_studio(root: Path) -> Truth:
    """The export JSON of brushes, and the images without the letters that Label Studio puts before their names."""
    tasks, truth = [], {}
    for number, (_, name, image, ids) in enumerate(scenes(), start=1):
        save(root / "images" / f"{name}.jpg", image)
        result = []
        known = np.zeros_like(ids)
        for i, kind in enumerate(("car", "road", "sky"), start=1):
            region = ids == CLASSES.index(kind)
            value = {"format": "rle", "rle": packed(region), "brushlabels": [kind]}
            size = {"original_height": HEIGHT, "original_width": WIDTH}
            result.append({"type": "brushlabels", "value": value, **size})
            known[region] = i
        data = {"image": f"/data/upload/1/0123abcd-{name}.jpg"}
        tasks.append({"id": number, "data": data, "annotations": [{"result": result}]})
        truth[name] = known
    (root / "project.json").write_text(json.dumps(tasks))
    return truth


def label_studio_png(root: Path) -> Truth:
    """A PNG of each label and task, and images that bear the number of their task."""
    truth = {}
    for number, (_, _, image, ids) in enumerate(scenes(), start=1):
        save(root / f"task-{number}.jpg", image)
        known = np.zeros_like(ids)
        for i, kind in enumerate(("car", "road"), start=1):
            region = (ids == CLASSES.index(kind)).astype(np.uint8) * 255
            save(root / f"task-{number}-annotation-{number + 4}-by-1-tag-{kind}-0.png", region)
            known[region > 0] = i
        truth[f"task-{number}"] = known
    return truth


def cvat(root: Path) -> Truth:
    """`Segmentation mask 1.1`: labelmap.txt, SegmentationClass in its colours, ImageSets/Segmentation/default.txt."""
    truth = {}
    for _, name, image, ids in scenes():
        save(root / "JPEGImages" / f"{name}.png", image)
        save(root / "SegmentationClass" / f"{name}.png", colored(ids))
        save(root / "SegmentationObject" / f"{name}.png", colored(ids))
        truth[name] = np.where(ids == 255, 0, ids + 1).astype(np.uint8)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "default.txt").write_text("".join(f"{name}\n" for name in truth))
    lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in zip(CLASSES, PALETTE, strict=True)]
    text = "\n".join(["# label:color_rgb:parts:actions", "background:0,0,0::", *lines])
    (root / "labelmap.txt").write_text(f"{text}\n")
    return truth


def plain(root: Path) -> Truth:
    """images/{train,val}, masks/{train,val}, classes.txt."""
    truth = {}
    for split, name, image, ids in scenes():
        save(root / "images" / split / f"{name}.png", image)
        save(root / "masks" / split / f"{name}.png", ids)
        truth[name] = ids
    names(root)
    return truth


LAYOUTS: tuple[Callable[[Path], Truth], ...] = (
    plain, beside, parallel, split_first, voc_without_lists, cvat, cityscapes, colors_alone, colors_named, binary,
    csv_pairs, coco_instances, coco_panoptic, labelme, label_studio, label_studio_png,
)  # fmt: skip
TINY = "steps=2 batch_size=2 augment.crop=[64,64] model.head_channels=16 model.weights_kind=none cache=none threads=1"


def main() -> None:
    """Make each layout, train two steps on it by one command, and print a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    print("| layout | decisions | seconds |\n|---|---|---|")
    for make in LAYOUTS:
        root = out / make.__name__
        make(root)
        begin = time.perf_counter()
        command = [sys.executable, "-m", "latentseg", "train", str(root), *TINY.split(), "model.frozen=false"]
        done = subprocess.run(
            [*command, "--run", str(out / "runs" / make.__name__)], capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - begin
        cells = [line.split("│")[1].strip() for line in done.stdout.splitlines() if line.startswith("│")]
        made = [cell.removeprefix("data.") for cell in cells if "=" in cell and not cell.startswith("data.root")]
        shown = ", ".join(f"`{cell if len(cell) < 60 else cell[:50] + '...'}`" for cell in made)
        print(f"| {(make.__doc__ or '').strip()} | {shown if done.returncode == 0 else done.stderr} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
