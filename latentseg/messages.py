"""What the command says of an error: one message, of one screen."""

import errno

from latentseg.errors import UserError, is_out_of_memory

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
OF_THE_USER = frozenset(
    {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ELOOP, *NO_ROOM}
)
"""What the system says of a file that the user named, and no part of the program asked about before."""
LINES, LETTERS = 24, 4000
"""Of a message on the screen."""


def told(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the status that the command ends with."""
    if isinstance(error, UserError):
        return f"error: {error}", error.status
    if is_out_of_memory(error):
        return (
            "error: out of memory: this takes more than the machine has. To train, take a smaller batch_size or "
            "augment.crop, or more model.micro_batches; to predict, inference.mode=slide, with a smaller "
            "inference.window; --debug says where it was"
        ), UserError.status
    if isinstance(error, OSError) and error.errno in OF_THE_USER and error.filename is not None:
        return f"error: {str(error.filename)[:200]}: {error.strerror}; name another file or folder", 2
    if isinstance(error, OSError) and error.errno in NO_ROOM:  # Python names no file that cannot be written further
        return f"error: what is written or printed has no room: {error.strerror}; make room, or write it elsewhere", 2
    return (
        f"internal error: {type(error).__name__}: {error}; run it again with --debug, and report what that shows "
        f"as an issue of latentseg"
    ), 1


def screen(text: str) -> str:
    """A message of one screen at most; what a terminal would obey, such as an escape in a file's name, is spelt out."""
    lines = text[:LETTERS].splitlines() or [""]
    kept = lines[:LINES]
    if len(lines) > LINES or len(text) > LETTERS:
        kept.append(f"... and more ({len(text)} letters in all; --debug shows them)")
    return "\n".join("".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in line) for line in kept)
