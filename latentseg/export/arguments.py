"""What can be told of an export before PyTorch is imported: format, file, extras."""

import os
from importlib.util import find_spec
from pathlib import Path

from latentseg.errors import UserError

SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2"}
"""Suffix of the file by format."""
MODULES = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "pt2": ()}


def check_arguments(out: Path, kind: str, int8: bool, size: tuple[int, int] | None) -> None:
    """Refuse an export that cannot be.

    Args:
        out: The file.
        kind: Format: onnx or pt2.
        int8: Whether weights and maps become integers of 8 bits.
        size: Height and width of every image, in pixels; None: any.

    Raises:
        UserError: The format is unknown, something it needs is not installed, or the file cannot be written.
    """
    if kind not in SUFFIXES:
        raise UserError(f"--format {kind}: choose {' or '.join(SUFFIXES)}")
    if out.suffix != SUFFIXES[kind]:
        raise UserError(f"--out {out}: a file of --format {kind} ends with {SUFFIXES[kind]}")
    if int8 and kind != "onnx":
        raise UserError(f"--int8 is there for --format onnx, not for {kind}")
    if int8 and size:
        raise UserError("--int8 is there for images of any size: leave out --size")
    if size and min(size) < 1:
        raise UserError(f"--size {size[0]} {size[1]}: height and width in pixels, at least 1")
    missing = [name for name in MODULES[kind] if find_spec(name) is None]
    if missing:
        raise UserError(f"--format {kind} needs {', '.join(missing)}: pip install 'latentseg[export]'")
    if os.path.lexists(out):
        raise UserError(f"{out} exists and is not overwritten: name another file with --out")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.absolute().parent}; make it, or name another")
    if not os.access(out.absolute().parent, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: nothing can be written to {out.absolute().parent}; name another folder")
