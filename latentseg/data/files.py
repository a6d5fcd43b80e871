"""Files of a data set: listing, stems, text, and the folders that hold them."""

import codecs
import os
from collections.abc import Iterator
from pathlib import Path

from latentseg.errors import DataError, UserError
from latentseg.reading import read_whole

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
NO_IMAGES = frozenset({".txt", ".md", ".json", ".xml", ".csv", ".yaml", ".yml", ".db", ".ini"})
"""Endings of files that lie beside images and are none; nobody has to be told that they are left out."""
BROKEN_LINK, SEEN_FOLDER = "broken link", "folder linked twice or in a circle"


def cache_home() -> Path:
    """The folder of the user's cache that is ours."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "latentseg"


def image_files(folder: Path) -> list[Path]:
    """All image files below a folder, by suffix, sorted; linked folders are followed, hidden files left out.

    Raises:
        DataError: A folder cannot be listed.
    """
    return sorted(path for path, why in _walk(folder) if not why and path.suffix.lower() in IMAGE_SUFFIXES)


def skipped_files(folder: Path) -> dict[str, list[Path]]:
    """What `image_files` leaves out, sorted, by ending (".heic", or "no ending") or cause ("broken link").

    Hidden files, and those that are no images by their ending (`NO_IMAGES`), are not named.

    Raises:
        DataError: A folder cannot be listed.
    """
    found: dict[str, list[Path]] = {}
    for path, why in sorted(_walk(folder)):
        suffix = path.suffix.lower()
        if why or suffix not in IMAGE_SUFFIXES | NO_IMAGES:
            found.setdefault(why or suffix or "no ending", []).append(path)
    return found


def skipped_note(folder: Path) -> list[str]:
    """A note on what `image_files` leaves out; none if it takes all."""
    found = skipped_files(folder)
    if not found:
        return []
    listed = ", ".join(
        f"{len(paths)} {name} ({first_three(path.name for path in paths)})" for name, paths in found.items()
    )
    number, read = sum(map(len, found.values())), " ".join(sorted(IMAGE_SUFFIXES))
    return [f"{number} files below {folder} are left out: {listed}. What is read: {read}; convert the others"]


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files below a folder; with a reason, what is left out: a broken link, a folder that was listed before.

    Folders come before links to folders: a link never takes the place of the folder itself.
    """
    seen: set[str] = set()
    folders, links = [folder], list[Path]()
    while folders or links:
        here = folders.pop() if folders else links.pop()
        real = os.path.realpath(here)
        if real in seen:
            yield here, SEEN_FOLDER
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            raise DataError("the folder cannot be listed", "look at its permissions", here, str(error)) from error
        for entry in entries:
            path = here / entry.name
            if entry.name.startswith("."):
                continue
            if os.path.isdir(path):  # noqa: PTH112 - a link to itself is no error there
                (links if entry.is_symlink() else folders).append(path)
            else:
                yield path, "" if is_file(path) else BROKEN_LINK if entry.is_symlink() else "no file"


def is_file(path: Path) -> bool:
    """Whether a file is there; a name that is too long for one, or holds a zero, is none."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for such names


def is_folder(path: Path) -> bool:
    """Whether a folder is there; a name that is too long for one, or holds a zero, is none."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises for such names


def home_path(name: str | Path) -> Path:
    """A path with `~` as the user's home; it stays where there is no such user."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser raises for such names


def first_three(names: Iterator[str]) -> str:
    """The first three names, and a mark that there are more."""
    shown = [name for _, name in zip(range(4), names, strict=False)]
    return ", ".join(shown[:3]) + ", ..." * (len(shown) > 3)


def shorten(text: str, length: int = 60) -> str:
    """A text for a message, on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 3]}..."


def files_by_stem(folder: Path) -> dict[str, Path]:
    """Image files below a folder by path without suffix, relative to it.

    Raises:
        DataError: Two files share a stem.
    """
    found: dict[str, Path] = {}
    for path in image_files(folder) if is_folder(folder) else ():
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise DataError("two files have the same stem", "rename or remove one of them", path, f"as {found[stem]}")
        found[stem] = path
    return found


def listing(folder: Path) -> str:
    """Names in a folder, shortened, for messages."""
    names = sorted(shorten(path.name) for path in folder.iterdir())
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "nothing"


def read_text(path: Path) -> str:
    """The text of a list or of class names: UTF-8 whatever the locale, or UTF-16 with its mark, as Windows writes it.

    Raises:
        DataError: The file cannot be read, or is neither.
    """
    try:
        content = read_whole(path)
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except FileNotFoundError as error:
        raise DataError("the file does not exist", "correct its name, or write it", path) from error
    except OSError as error:
        raise DataError("the file cannot be read", "look at its permissions", path, str(error)) from error
    except UnicodeDecodeError as error:
        raise _no_text(path, content, f"{error.reason} at byte {error.start}") from error
    if "\0" in text:
        raise _no_text(path, content, "it holds zero bytes")
    return text


def _no_text(path: Path, content: bytes, detail: str) -> DataError:
    coding = "UTF-16LE" if b"\0" in content else "WINDOWS-1252"  # which Windows calls Latin-1
    coding = "UTF-16BE" if content.startswith(b"\0") else coding
    coding = "UTF-32" if content.startswith(codecs.BOM_UTF32_LE) else coding
    return DataError(
        "cannot be read as text in UTF-8, nor as UTF-16 with its mark",
        f"save it as UTF-8 (if it is {coding}: iconv -f {coding} -t UTF-8 OLD > NEW)",
        path,
        detail,
    )


def data_folder(name: str | None, kind: str) -> Path:
    """The root of a data set, which must be a folder with something in it."""
    if name is None:
        raise UserError(f"data.kind={kind} needs data.root, the folder of the data set")
    root, shown = home_path(name), shorten(name, 200)
    if not is_folder(root):
        state = "is not a folder" if os.path.exists(root) else "does not exist"  # noqa: PTH110 - as in is_folder
        where = "" if root.is_absolute() else f" below {Path.cwd()}"
        raise UserError(f"data.root={shown} {state}{where}; give the folder of the data set")
    if not any(root.iterdir()):
        raise DataError("the folder of the data set is empty", "give the folder that holds the images", root)
    return root


def voc_root(root: Path) -> Path:
    """The folder that holds JPEGImages: the given one, or one up to two folders below."""
    for depth in ("JPEGImages", "*/JPEGImages", "*/*/JPEGImages"):
        found = sorted(path.parent for path in root.glob(depth) if path.is_dir())
        if len(found) > 1:
            raise UserError(f"data.root={root} holds several VOC sets: {', '.join(map(str, found))}; name one of them")
        if found:
            return found[0]
    raise DataError(
        "no JPEGImages in it or up to two folders below (kind voc)",
        "give the folder that holds them, or another data.kind",
        root,
        f"found {listing(root)}",
    )
