"""Masks drawn from annotations are files in the user's cache folder: everything that reads masks reads them, too.

Drawing them as they are read would spare the disk, and ask every reader, check and list of the house to know two kinds
of masks. They are drawn once, and again where the annotations change.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentseg.console import console, track
from latentseg.data.files import cache_home, first_three, image_files, read_text, shorten
from latentseg.data.pairs import header
from latentseg.data.templates import split_in
from latentseg.errors import DataError, UserError

VERSION = 2
"""Of how masks are drawn; another one draws all of them anew."""
BACKGROUND = "background"
"""The class of pixels that no annotation covers, with the id 0."""
Uncovered = Literal["background", "ignore"]
"""What those pixels are (`data.uncovered`): of that class, or without label."""
ODD = (AttributeError, LookupError, TypeError, ValueError, OverflowError, OSError)
"""What Python says where a part of an annotation is missing, or is no number, list or text as it should be."""


@dataclass(frozen=True)
class Drawing:
    """An image with annotations: its mask is what `draw` gives, class ids of shape (H, W), 255 without label."""

    split: str
    id: str
    image: Path
    draw: Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True)
class Annotations:
    """What the annotations of a data set hold.

    Attributes:
        classes: Names, in the order of the ids in the drawn masks.
        drawings: Images with annotations.
        bare: Further images, without annotations: split, id and file.
        files: What the masks depend on.
        notes: What was assumed or left out.
        uncovered: What the pixels are that no annotation covers.
    """

    classes: tuple[str, ...]
    drawings: list[Drawing]
    files: list[Path]
    bare: list[tuple[str, str, Path]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    uncovered: Uncovered = "background"


@contextmanager
def understood(path: Path, cause: str = "annotations of an unknown form", detail: str = "") -> Iterator[None]:
    """Explain what fails inside, as it reads annotations of a file, by the file.

    Raises:
        DataError: Something has failed.
    """
    try:
        yield
    except ODD as error:
        kind = "it lacks " if isinstance(error, KeyError) else ""
        what = shorten(f"{detail}{': ' if detail else ''}{kind}{error}", 200)
        raise DataError(cause, "export them again, or mend them", path, what) from error


def size_of(image: Path, height: object = None, width: object = None) -> tuple[int, int]:
    """Height and width of the mask of an image: those that an annotation says, or, without, those of the upright image.

    Raises:
        DataError: The annotation says another size than the image has; the image cannot be read.
    """
    (high, wide), stored = header(image)
    if height is None and width is None:
        return high, wide
    for size in ((high, wide), (wide, high) if stored >= 5 else (high, wide)):
        if size == (height, width):
            return size
    said = shorten(f"{wide}x{high}, annotated as {width!r}x{height!r}, width x height", 100)
    raise DataError("an image of another size than its annotations say", "export them of this image", image, said)


def drawn_masks(found: Annotations, skip: bool = False) -> tuple[dict[tuple[str, str], Path], list[str]]:
    """The files of the drawn masks by split and id, and notes; those that are missing are drawn now.

    Args:
        found: The annotations.
        skip: Leave out what cannot be drawn, with a note.

    Raises:
        DataError: Annotations cannot be drawn; an image has several.
        UserError: The cache folder cannot be written.
    """
    twice = [key for key, number in Counter((each.split, each.id) for each in found.drawings).items() if number > 1]
    if twice:
        names = first_three(name for _, name in twice)
        raise DataError(f"{len(twice)} images are annotated twice", "leave one of the annotations", None, names)
    folder = mask_cache() / _key(found)
    masks = {(each.split, each.id): folder / each.split / f"{each.id}.png" for each in found.drawings}
    missing = [each for each in found.drawings if not masks[each.split, each.id].is_file()]
    lost: dict[tuple[str, str], DataError] = {}
    try:
        for each in track(missing, "drawing masks") if missing else ():
            try:
                _write(each.draw(), masks[each.split, each.id])
            except DataError as error:
                lost[each.split, each.id] = error
    except OSError as error:
        raise UserError(
            f"masks cannot be drawn to {folder}: {error.strerror}; name another folder by XDG_CACHE_HOME"
        ) from error
    if len(missing) > len(lost):
        console.print(f"note: {len(missing) - len(lost)} masks drawn to {folder}", markup=False, highlight=False)
    if lost and not skip:
        raise _undrawn(list(lost.values()), len(masks), "mend them, or go on without them by data.on_bad=skip")
    notes = [str(_undrawn(list(lost.values()), len(masks), "they have no label (data.on_bad=skip)"))] if lost else []
    return {key: path for key, path in masks.items() if key not in lost}, notes


def mask_cache() -> Path:
    """Where drawn masks are kept."""
    return cache_home() / "masks"


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: It is none.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError("cannot be read as JSON", "export it again, or remove it", path, str(error)) from error


def json_files(root: Path) -> list[Path]:
    """JSON files below a folder, hidden ones left out, sorted."""
    return files_below(root, ".json")


def files_below(root: Path, suffix: str) -> list[Path]:
    """Files of an ending below a folder, hidden ones left out, sorted."""
    found = (path for path in root.rglob(f"*{suffix}") if path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))


class ImageIndex:
    """The image files of a data set by name.

    Args:
        root: Of the data set.
        without: Folders whose files are no images.
    """

    def __init__(self, root: Path, without: Iterable[Path] = ()) -> None:
        self.root, apart = root, list(without)
        self.files = [path for path in image_files(root) if not any(path.is_relative_to(each) for each in apart)]
        self._named: dict[str, list[Path]] = {}
        self._stems = Counter(path.with_suffix("") for path in self.files)
        for path in self.files:
            self._named.setdefault(path.name, []).append(path)

    def find(self, name: str, near: Path, split: str = "") -> Path | None:
        """The file that an annotation names, by the longest part of its path; None if there is none.

        Args:
            name: As the annotation has it, with or without folders.
            near: Where the annotation lies: among files of one name, the one beside it.
            split: Else the one below a folder that bears this in its name.

        Raises:
            DataError: Several files may be meant.
        """
        wanted = Path(name.replace("\\", "/"))
        found = self._named.get(wanted.name, [])
        tests: list[Callable[[Path], bool]] = [
            lambda path: path.as_posix().endswith(f"/{wanted.as_posix().lstrip('./')}"),
            lambda path: path.is_relative_to(near),
            lambda path: bool(split) and any(split in part for part in path.relative_to(self.root).parts[:-1]),
        ]
        for test in tests:
            found = [path for path in found if test(path)] or found
        if len(found) > 1:
            remedy = "leave one of them, or move the annotations into its folder"
            raise DataError(f"several images are named {wanted.name}", remedy, found[0], f"as {found[1]}")
        return found[0] if found else None

    def split_of(self, path: Path) -> str:
        """The split that its folders name, else train."""
        return split_in(path.relative_to(self.root).parts[:-1])

    def id_of(self, path: Path) -> str:
        """Its path below the root, without ending where this tells it from others."""
        name = path.relative_to(self.root)
        return (name if self._stems[path.with_suffix("")] > 1 else name.with_suffix("")).as_posix()


def numbered(names: Iterable[str], uncovered: Uncovered = "background") -> dict[str, int]:
    """Ids of classes by name: `background` is 0, the others follow in their order; none is added to them for `ignore`.

    Raises:
        DataError: There are more than 254, or none.
    """
    if uncovered == "ignore":
        listed = list(dict.fromkeys(names))
        if not 0 < len(listed) < 256:
            raise DataError(f"annotations of {len(listed)} classes", "1 to 255 are possible with data.uncovered=ignore")
        return {name: number for number, name in enumerate(listed)}
    others = [name for name in dict.fromkeys(names) if name.casefold() not in {BACKGROUND, "_background_"}]
    if not 0 < len(others) < 255:
        raise DataError(f"annotations of {len(others)} classes", "1 to 254 are possible, and the background")
    return {BACKGROUND: 0} | {name: number for number, name in enumerate(others, start=1)}


def _undrawn(errors: list[DataError], images: int, remedy: str) -> DataError:
    """One message of many, by cause."""
    groups: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        groups.setdefault((error.cause, error.remedy), []).append(f"{error.path} ({error.detail})")
    found = groups.items()
    lines = [f"  {len(names)} x {cause}; {mend}:\n      {first_three(iter(names))}" for (cause, mend), names in found]
    cause = f"the annotations of {len(errors)} of {images} images cannot be drawn"
    return DataError(cause, "\n".join([f"{remedy}:", *lines]))


def _key(found: Annotations) -> str:
    how = str(VERSION) if found.uncovered == "background" else f"{VERSION} {found.uncovered}"
    digest = hashlib.blake2b(how.encode(), digest_size=8)
    for path in sorted(found.files):
        digest.update(f"\0{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _write(mask: NDArray[np.uint8], path: Path) -> None:
    """Whole or not at all: other processes may draw the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        Image.fromarray(mask).save(file, "PNG")
    Path(file.name).replace(path)
