"""What `prelabel` is asked for, and what can be refused before a model is loaded. Without PyTorch."""

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from latentseg.annotate.formats import FORMAT_NAMES, FormatName, path_of
from latentseg.data.files import is_file, is_folder, read_text
from latentseg.errors import UserError
from latentseg.inference.jobs import Jobs, find_jobs
from latentseg.inference.pictures import check_writable


@dataclass(frozen=True)
class Plan:
    """Proposals that can be written.

    Attributes:
        images: Their folder.
        jobs: The images by name, a path without ending.
        name: Of the format.
        out: Folder of the results.
        threshold: Least probability of a proposal.
    """

    images: Path
    jobs: Jobs
    name: FormatName
    out: Path
    threshold: float


def plan(images: Path, name: str, out: Path | None = None, threshold: float = 0.5) -> Plan:
    """Look at all that is asked for.

    Args:
        images: A folder, searched recursively; or a list of images, such as `suggest` writes, a .txt file.
        name: Of the format.
        out: Folder of the results; None: one beside the folder of images, with the format in its name.
        threshold: Least probability of a proposal, 0..1.

    Raises:
        UserError: There is no such format, the threshold is no probability, the folder holds no image, a package is
            missing, or a result exists.
    """
    if name not in FORMAT_NAMES:
        raise UserError(f"--format {name}: choose {', '.join(FORMAT_NAMES)}")
    if not 0 <= threshold <= 1:
        raise UserError(f"--threshold {threshold} is no probability: choose one in 0..1 (0 leaves no pixel open)")
    listed = images.suffix == ".txt" and is_file(images)
    if not listed and not is_folder(images):
        raise UserError(f"{images} is no folder: name the folder of the images, or a list of them (.txt)")
    place, jobs = _listed(images) if listed else (images, find_jobs([images]))
    if name == "coco":
        _check_pycocotools()
    whole = images if images.name else images.resolve()  # of "." the name is not known
    folder = out or whole.with_name(f"{whole.stem if listed else whole.name}-{name}")
    check_writable(folder)
    for path in {path_of(folder, name, image): None for image in jobs}:  # a document once
        if os.path.exists(path):  # noqa: PTH110 - long names
            raise UserError(f"{path} exists and is not overwritten: name another folder with --out")
    return Plan(place, jobs, name, folder, threshold)


def _listed(path: Path) -> tuple[Path, Jobs]:
    """The images of a list, one a line, below the current folder or that of the list; and the folder above them all.

    Raises:
        UserError: One is missing, or there is none.
    """
    found: list[Path] = []
    for line in filter(None, map(str.strip, read_text(path).splitlines())):
        places = [place for place in (Path(line), path.parent / line) if is_file(place)]
        if not places:
            raise UserError(f"{path} names {line}, which is no file here or in {path.parent}")
        found.append(places[0].absolute())
    if not found:
        raise UserError(f"{path} names no image")
    above = Path(os.path.commonpath([image.parent for image in found]))
    return above, {image.relative_to(above).with_suffix(""): image for image in found}


def _check_pycocotools() -> None:
    try:
        import_module("pycocotools.mask")
    except ImportError as error:
        raise UserError("--format coco needs pycocotools: pip install 'latentseg[coco]'") from error
