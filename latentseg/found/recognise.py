"""What lies in a folder of photographs and labels, and the options that read it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from latentseg.config import DataConfig
from latentseg.data.datasets import Dataset, open_dataset
from latentseg.data.drawn.coco import is_coco
from latentseg.data.drawn.cvat import read_cvat
from latentseg.data.drawn.label_studio import PNG, is_label_studio
from latentseg.data.drawn.labelme import is_labelme
from latentseg.data.drawn.store import files_below, json_files, read_json
from latentseg.data.files import data_folder, first_three, image_files, skipped_note
from latentseg.data.pair_lists import NO_PAIRS, read_pair_list
from latentseg.data.pairing import shorter
from latentseg.data.templates import Row, is_split, split_in
from latentseg.errors import DataError, UserError
from latentseg.found.choices import Choice, Found, Problem
from latentseg.found.pairs import guess_pairs
from latentseg.found.values import meaning, shows_colors
from latentseg.presets import load_config

PLAIN = {("images/{split}/{id}", f"{masks}/{{split}}/{{id}}") for masks in ("masks", "labels")}
FEW = 20
"""Labelled images of which one fold says little."""
UNCOVERED = "are background; data.uncovered=ignore: no label"
NOT_READ = {
    ".txt": "YOLO's text labels are not read: convert them to COCO JSON",
    ".xml": "XML is read as CVAT for images 1.1; of other tools export masks, or COCO JSON",
    ".npy": "arrays are not read: save masks as PNG",
    ".mat": "Matlab files are not read: save masks as PNG",
    ".nii": "volumes are not read: save slices and masks as PNG",
    ".gz": "volumes and archives are not read: unpack them, save slices and masks as PNG",
    ".zip": "archives are not read: unpack them",
}
"""What is said of files that lie beside images of which no mask was found."""


def recognise(root: Path, given: Sequence[str] = ()) -> Found:
    """Find out what lies in a folder; nothing in it is changed.

    Args:
        root: The folder.
        given: `key=value` that somebody has decided: what they say is not looked for.

    Raises:
        DataError: No images with labels are recognised, or labels have no sure meaning; the message says what to do.
        UserError: It is no folder.
    """
    root = data_folder(str(root), "folder").resolve()
    decided = {key.strip(): value for key, _, value in (text.partition("=") for text in given)}
    if "data.kind" in decided:
        found: Found | None = Found(
            root, f"data.kind={decided['data.kind']}", _begin(decided["data.kind"], root, "given")
        )
    else:
        found = next((found for look in _LOOKS if (found := look(root))), None) or _files(root, given, decided)
    if found is None:
        raise _nothing(root)
    found.choices = [choice for choice in found.choices if choice.key not in decided]
    dataset = open_dataset(_data([*found.overrides, *given]))
    found.problems += [Problem(note, "") for note in dataset.notes]
    if decided.get("data.holdout", "").strip() == "0":
        decided.setdefault("validate_split", "val")
    found.choices += [choice for choice in _splits(dataset) if choice.key not in decided]
    if dataset.config.kind == "folder":
        more, problems = _others(root, dataset)
        problems += _broken_lists(root) if not isinstance(dataset.config.pairs, str) else []
        found.choices += [choice for choice in more if choice.key not in decided]
        found.problems += problems
    return found


def _data(overrides: Sequence[str]) -> DataConfig:
    return load_config("folder", [each for each in overrides if each.startswith("data.")]).data


def _begin(kind: str, root: Path, why: str, otherwise: str = "") -> list[Choice]:
    return [Choice("data.kind", kind, why, otherwise), Choice("data.root", str(root), "the folder")]


def _voc(root: Path) -> Found | None:
    homes = [path.parent for depth in ("", "*/", "*/*/") for path in sorted(root.glob(f"{depth}JPEGImages"))]
    masks = [name for name in ("SegmentationClassAug", "SegmentationClass", "SegmentationClassPNG")
             if homes and any((homes[0] / name).glob("*.png"))]  # fmt: skip
    if not masks:
        return None
    home, lists = homes[0], sorted(path.stem for path in (homes[0] / "ImageSets/Segmentation").glob("*.txt"))
    labels, first = home / "labelmap.txt", next((homes[0] / masks[0]).glob("*.png"))
    layout = "VOC, as CVAT exports it" if labels.is_file() else "VOC"
    choices = [*_begin("voc", home, f"JPEGImages and {masks[0]}"), Choice("data.masks", masks[0], "holds PNG files")]
    choices += [choice._replace(alternative=", ".join(masks[1:])) for choice in choices[-1:] if masks[1:]]
    if labels.is_file() or shows_colors(first):
        whose = "labelmap.txt" if labels.is_file() else "VOC"
        choices.append(Choice("data.color_map", "palette", f"the colours of {whose}", "index, for ids"))
    named = [name for name in ("train_aug", "train", "trainval", "default") if name in lists] or lists
    if named and named[0] not in {"train_aug", "train"}:
        choices.append(Choice("data.train_list", named[0], f"the lists are {', '.join(lists)}", ", ".join(named[1:])))
    problems = [] if lists else [Problem("no lists in ImageSets/Segmentation: all images are for training", "")]
    if not labels.is_file() and not (home / "class_names.txt").is_file():
        problems.append(Problem("no names of classes: those of VOC are assumed", "write labelmap.txt: name:r,g,b::"))
    return Found(home, layout, choices, problems)


def _cityscapes(root: Path) -> Found | None:
    homes = [path.parent for depth in ("", "*/") for path in sorted(root.glob(f"{depth}leftImg8bit"))]
    home = next((home for home in homes if (home / "gtFine").is_dir()), None)
    return Found(home, "Cityscapes", _begin("cityscapes", home, "leftImg8bit and gtFine")) if home else None


def _json(root: Path) -> Found | None:
    tests: dict[str, tuple[str, Callable[[object], bool], str]] = {
        "coco": ("COCO", is_coco, f"pixels without an instance {UNCOVERED}"),
        "labelme": ("LabelMe", is_labelme, f"pixels without a shape {UNCOVERED}"),
        "label_studio": ("Label Studio", is_label_studio, f"pixels without a region {UNCOVERED}"),
    }
    problems = []
    for path in json_files(root):
        try:
            tree = read_json(path)
        except DataError as error:
            problems.append(Problem(f"{path.relative_to(root)}: {error.cause}", error.remedy))
            continue
        for kind, (name, test, otherwise) in tests.items():
            if test(tree):
                why = f"{path.relative_to(root)} is a file of {name}; masks are drawn into the cache folder"
                return Found(root, name, _begin(kind, root, why, otherwise), problems)
    if any(PNG.fullmatch(path.name) for path in image_files(root)):
        why = "PNG files of Label Studio, one a label; masks are drawn into the cache folder"
        return Found(root, "Label Studio", _begin("label_studio", root, why))
    return None


def _xml(root: Path) -> Found | None:
    for path in files_below(root, ".xml"):
        with suppress(DataError):  # if the others are CVAT's, the reader names it
            if read_cvat(path) is not None:
                why = f"{path.relative_to(root)} is a file of CVAT; masks are drawn into the cache folder"
                return Found(root, "CVAT", _begin("cvat", root, why, f"pixels without a shape {UNCOVERED}"))
    return None


def _csv(root: Path) -> Found | None:
    path, rows = next(((path, found) for path, found in _lists(root) if isinstance(found, list)), (root, []))
    if not rows:
        return None
    why = f"{path.name} names {len(rows)} images and their masks"
    choices = [*_begin("folder", root, why), Choice("data.pairs", path.name, why)]
    more, broken = meaning(root, [row.mask for row in rows if row.mask])
    return Found(root, f"pairs in {path.name}", choices + more, broken)


def _lists(root: Path) -> Iterator[tuple[Path, list[Row] | DataError]]:
    """The CSV files of a folder, and what they name, or why they are no lists of pairs."""
    for path in sorted(root.glob("*.csv")):
        try:
            yield path, read_pair_list(path, root)
        except DataError as error:
            yield path, error


def _broken_lists(root: Path) -> list[Problem]:
    """CSV files that name pairs of image files, and are not read for a mistake in them."""
    errors = [error for _, error in _lists(root) if isinstance(error, DataError) and error.cause != NO_PAIRS]
    return [Problem(f"a list of pairs that is not used: {error}", "") for error in errors]


_LOOKS = (_voc, _cityscapes, _json, _xml, _csv)


def _files(root: Path, given: Sequence[str], decided: dict[str, str]) -> Found | None:
    pair = guess_pairs(root, image_files(root)) if "data.pairs" not in decided else None
    if pair is None and "data.pairs" not in decided:
        return None
    choices = _begin("folder", root, f"images {pair[0]}, masks {pair[1]}" if pair else "data.pairs is given")
    if pair and not _is_plain(root, pair):
        otherwise = "other names, or a CSV file"
        choices.append(Choice("data.pairs", list(pair), "the names that fit the most files", otherwise))
    classes = [] if "data.classes" in decided or (root / "classes.txt").is_file() else ["data.classes=[a,b]"]
    dataset = open_dataset(_data([*(choice.override for choice in choices), *given, *classes]))
    if {"data.class_map", "data.color_map"} & decided.keys():
        return Found(root, "images and masks", choices)
    masks = [item.mask for split in dataset.splits for item in dataset.items(split) if item.mask]
    try:
        names = dataset.config.classes if "data.classes" in decided else None
        more, broken = meaning(root, masks, names, dataset.config.ignored_values)
    except DataError as error:
        if classes:
            raise
        more, broken = [], [Problem(f"{error.cause}{f' ({error.detail})' if error.detail else ''}", error.remedy)]
    return Found(root, "images and masks", choices + more, broken)


def _is_plain(root: Path, pair: tuple[str, str]) -> bool:
    """Whether the plain layout says the same without `data.pairs`: its splits are called train, val and test."""
    if pair not in PLAIN or ((root / "masks").is_dir() and (root / "labels").is_dir()):
        return False
    return not any(split_in([path.name]) != path.name and is_split(path.name) for path in (root / "images").iterdir())


def _splits(dataset: Dataset) -> list[Choice]:
    """Which images keep their labels, and which are scored."""
    train = dataset.items("train") if dataset.has("train") else []
    able = sum(item.has_labels for item in train)
    if not able:
        raise DataError("no training image has a mask", "; ".join(dataset.notes) or "add masks", dataset.root)
    text = f"{able} of {len(train)} training images have a mask" + ("; the others are unlabelled" * (able < len(train)))
    chosen = [Choice("data.labeled", "all", text, "a number, a fraction or a list file, to leave some out")]
    scored = dataset.items("val") if dataset.has("val") else []
    if any(item.has_labels for item in scored):
        return chosen
    if able == 1:
        return [*chosen, Choice("data.holdout", 0, "one labelled image: nothing is left to score", "label more images")]
    number = max(1, able // 5)
    few = f"; few labels: --folds {min(5, able)} holds out each in turn" if able <= FEW else ""
    none = "no mask in val" if scored else "no split val"
    why = f"{none}: {number} of {able} labelled images are held out, drawn with a fixed seed"
    return [
        *chosen,
        Choice("data.holdout", number, why, f"another number; or make a split val{few}"),
        Choice("validate_split", "holdout", "scores are those of the held-out images"),
    ]


def _others(root: Path, dataset: Dataset) -> tuple[list[Choice], list[Problem]]:
    """Images that are neither: further unlabelled ones by the name of their folder, or not understood."""
    items = [item for split in dataset.splits for item in dataset.items(split)]
    used = {path for item in items for path in (item.image, item.mask)}
    left = Counter(path.parent for path in image_files(root) if path not in used)
    more = [str(folder) for folder in left if "unlabel" in folder.name.lower()]
    chosen = [Choice("data.unlabeled", more, "its name", "[] leaves it out")] if more else []
    problems = [
        Problem(f"{number} images in {folder}", "they are not used; as unlabelled ones: data.unlabeled=[FOLDER]")
        for folder, number in left.items()
        if str(folder) not in more and split_in(folder.relative_to(root).parts) == "train"
    ]
    labeled = {item.id for item in items if item.mask}
    copies = [i.id for i in items if not i.mask and any(name in labeled for name in shorter(i.id))]
    if copies:
        text = f"{len(copies)} images without mask are named after images with one ({first_three(iter(copies))})"
        problems.append(Problem(text, "they count as unlabelled photographs: if they are none, move them out"))
    return chosen, [*problems, *(Problem(note, "") for note in skipped_note(root))]


def _nothing(root: Path) -> UserError:
    images = image_files(root)
    endings = Counter(path.suffix.lower() for path in root.rglob("*") if path.is_file())
    hints = [text for ending, text in NOT_READ.items() if endings[ending]]
    held = ", ".join(f"{number} {ending or 'without ending'}" for ending, number in endings.most_common(6))
    if not images:
        return DataError("no images are in it", "; ".join(["give the folder that holds them", *hints]), root, held)
    remedy = "lay masks beside the images (x.png and x_mask.png), or in masks/ beside images/; or set data.pairs"
    names = first_three(str(path.relative_to(root)) for path in images)
    return DataError("images, but no masks are recognised", "; ".join([remedy, *hints]), root, f"{held}: {names}")
