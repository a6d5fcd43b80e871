"""Files that others may have put where one is expected."""

import errno
import stat
from pathlib import Path


def read_whole(path: Path) -> bytes:
    """The content of a file. A pipe or a device in its place is not read: it may have no end, or no beginning.

    Raises:
        OSError: It is not there, cannot be read, or is no file.
    """
    check_file(path)
    return path.read_bytes()


def check_file(path: Path) -> None:
    """Refuse what is no file.

    Raises:
        OSError: It is not there, or a folder, a pipe or a device.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "a folder, a pipe or a device is in the place of the file", str(path))
