"""Files of a data set: listing, stems, text, and the folders that hold them."""

from pathlib import Path

from latentseg.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})


def image_files(folder: Path) -> list[Path]:
    """All image files below a folder, by suffix, sorted; hidden files are left out."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in files if path.is_file() and not path.name.startswith("."))


def files_by_stem(folder: Path) -> dict[str, Path]:
    """Image files below a folder by path without suffix, relative to it.

    Raises:
        UserError: Two files share a stem.
    """
    found: dict[str, Path] = {}
    for path in image_files(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise UserError(f"{found[stem]} and {path} have the same stem; rename or remove one of them")
        found[stem] = path
    return found


def listing(folder: Path) -> str:
    """Names in a folder, shortened, for messages."""
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "nothing"


def read_text(path: Path) -> str:
    """The text of a list or of class names: UTF-8 whatever the locale, with or without the mark that Windows writes.

    Raises:
        UserError: The file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text in UTF-8 ({error}); save it as UTF-8") from error


def data_folder(name: str | None, kind: str) -> Path:
    """The root of a data set, which must be a folder with something in it."""
    if name is None:
        raise UserError(f"data.kind={kind} needs data.root, the folder of the data set")
    root = Path(name).expanduser()
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"data.root={root} {state}; give the folder of the data set")
    if not any(root.iterdir()):
        raise UserError(f"data.root={root} is empty; give the folder of the data set")
    return root


def voc_root(root: Path) -> Path:
    """The folder that holds JPEGImages: the given one, or one up to two folders below."""
    for depth in ("JPEGImages", "*/JPEGImages", "*/*/JPEGImages"):
        found = sorted(path.parent for path in root.glob(depth) if path.is_dir())
        if len(found) > 1:
            raise UserError(f"data.root={root} holds several VOC sets: {', '.join(map(str, found))}; name one of them")
        if found:
            return found[0]
    raise UserError(
        f"data.root={root}: no JPEGImages in it or up to two folders below (kind voc); found {listing(root)}"
    )
