"""The errors that users are meant to read, each with the status that the command ends with."""

from pathlib import Path


class UserError(Exception):
    """Bad usage or configuration: the message names the thing, its value, what is allowed and the remedy.

    The command line prints it without a traceback and ends with its status.
    """

    status = 2


class DataError(UserError):
    """A file of the data set that cannot be used; the data check groups many of them by cause.

    Args:
        cause: What is wrong, without the file's name, the same words for every file: "no readable image content".
        remedy: What to do about it: an option that works, or what to do with the file.
        path: The file, if it is about one.
        detail: What differs from file to file, such as the values found.
    """

    status = 3

    def __init__(self, cause: str, remedy: str, path: Path | str | None = None, detail: str = "") -> None:
        self.cause, self.remedy, self.path, self.detail = cause, remedy, path, detail
        where = f"{path}: " if path is not None else ""
        super().__init__(f"{where}{cause}{f' ({detail})' if detail else ''}; {remedy}")

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.cause, self.remedy, self.path, self.detail)  # between processes


class RunError(UserError):
    """A run folder or a checkpoint that cannot be used."""

    status = 4


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine had no memory left: Python, NumPy and Pillow say so in one way, PyTorch in two others."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    told = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(
        words in told for words in ("can't allocate memory", "cannot allocate memory", "out of memory", "bad_alloc")
    )
