"""Lock files that hold between processes and machines, and that die with their owner.

A lock is a small JSON file that names its owner, who refreshes its time. It is created whole and exclusively, and never
replaced: whoever takes over the lock of a dead owner creates its successor, `NAME.TOKEN`, TOKEN being the dead
owner's. Two that find the same dead owner want the same name, and one gets it. The last of the chain holds the lock. To
let go, an owner first takes its own succession, so that it cannot be taken over in that moment, and removes the chain
from the root.
"""

import _thread
import contextlib
import errno
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from latentseg.console import console
from latentseg.errors import RunError
from latentseg.reading import read_whole

BEAT = 10.0
"""Seconds between two refreshments."""
STALE = 120.0
"""Seconds after which an owner that cannot be looked up, on another machine, counts as dead."""
POLL, TELL = 0.5, 30.0
"""Seconds between two looks at a lock that one waits for, and between two lines about it."""


def _space() -> str:
    if sys.platform == "win32":
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {sys.platform}"


def _born(pid: int) -> str | None:
    """When a process of this machine started, in a form to compare; None if it is gone."""
    if sys.platform == "win32":
        return None  # os.kill(pid, 0) would end it
    if sys.platform == "linux":
        try:
            parts = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return None
        return None if parts[0] in "ZX" else parts[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"


@dataclass(frozen=True)
class Owner:
    """Who holds a lock."""

    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    space: str = field(default_factory=_space)
    """Boot and namespace in which `pid` means something; empty where processes cannot be looked up."""
    born: str | None = field(default_factory=lambda: _born(os.getpid()))
    """Start of the process: its number may be given to another one."""
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def __str__(self) -> str:
        """For people."""
        return f"pid {self.pid} on {self.host}"


Chain = list[tuple[Path, Owner]]


@contextmanager
def hold(path: Path, what: str, wait: bool = False) -> Iterator[threading.Event]:
    """Hold the lock file `path` for the duration of a `with` block. Yields what is set once the lock is lost.

    Args:
        path: The lock file; its folder is made if need be.
        what: What is locked, for messages.
        wait: Wait till another owner lets go or dies, instead of an error.

    Raises:
        RunError: Another live process holds it, it cannot be written, or it was lost meanwhile (this machine slept
            for so long that another one took over).
    """
    told = time.monotonic() - TELL
    while (chain := _take(path)) is None:
        owner = live_owner(path)
        if owner and not wait:
            raise RunError(
                f"{what} is in use by {owner}: wait till it is done, or end that process. If there is no such process, "
                f"the lock {path} counts as free {STALE:.0f} s after its last sign of life"
            )
        if owner and time.monotonic() - told >= TELL:
            told = time.monotonic()
            console.print(f"waiting for {what}: in use by {owner}", markup=False, highlight=False)
        time.sleep(POLL if owner else 0)
    lost = threading.Event()
    with _held(path, chain, what, lost):
        yield lost


def try_hold(path: Path) -> AbstractContextManager[bool]:
    """Hold the lock file `path` if it is free or its owner is dead; the `with` block is told whether."""
    chain = _take(path)
    return nullcontext(False) if chain is None else _held(path, chain, str(path), threading.Event())


def live_owner(path: Path) -> str | None:
    """Who holds the lock, as "pid 123 on host", or None if it is free or its owner is dead."""
    chain = _chain(path)
    return str(chain[-1][1]) if chain and _alive(*chain[-1]) else None


@contextmanager
def _held(path: Path, chain: Chain, what: str, lost: threading.Event) -> Iterator[bool]:
    done = threading.Event()
    main = threading.current_thread() is threading.main_thread()
    beating = threading.Thread(target=_beat, args=(path, chain, done, lost, main), daemon=True)
    beating.start()
    try:
        yield True
    except KeyboardInterrupt:
        if not lost.is_set():
            raise
    finally:
        done.set()
        beating.join()
        if not lost.is_set():
            _let_go(path, chain)
    if lost.is_set():
        raise RunError(f"{what}: another process took over the lock {path}, or it was removed; stopped here")


def _beat(path: Path, chain: Chain, done: threading.Event, lost: threading.Event, main: bool) -> None:
    """Refresh the lock till it is let go; stop the main thread if the lock is lost."""
    while not done.wait(BEAT):
        with contextlib.suppress(OSError):  # a network disk has its moments
            os.utime(chain[-1][0])
        if _chain(path)[-1:] != chain[-1:] and not done.is_set():
            lost.set()
            if main:
                _thread.interrupt_main()
            return


def _take(path: Path) -> Chain | None:
    """Become the end of the chain; None if its end lives."""
    mine = Owner()
    while True:
        chain = _chain(path)
        if chain and _alive(*chain[-1]):
            return None
        place = _successor(path, chain[-1][1]) if chain else path
        try:
            created = _create(place, mine)
        except OSError as error:
            raise RunError(f"cannot write the lock {place}: {error.strerror}") from error
        if not created:
            continue
        chain.append((place, mine))
        if _chain(path) == chain:
            return chain
        place.unlink(missing_ok=True)  # what came before was released between the look and the creation


def _let_go(path: Path, chain: Chain) -> None:
    tomb = _successor(path, chain[-1][1])
    try:
        if _chain(path) == chain and _create(tomb, chain[-1][1]):
            for place in [*(place for place, _ in chain), tomb]:  # the root first: it is what others begin with
                place.unlink(missing_ok=True)
    except OSError as error:
        console.print(f"note: cannot remove the lock {path}: {error.strerror}", markup=False, highlight=False)


def _successor(path: Path, owner: Owner) -> Path:
    return path.with_name(f"{path.name}.{owner.token}")


def _chain(path: Path) -> Chain:
    chain: Chain = []
    place = path
    while (owner := _read(place)) is not None and owner not in [known for _, known in chain]:
        chain.append((place, owner))
        place = _successor(path, owner)
    return chain


def _read(place: Path, tries: int = 5) -> Owner | None:
    for _ in range(tries):
        try:
            return Owner(**json.loads(read_whole(place)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError, RecursionError):  # being written, on a disk without hard links
            time.sleep(0.02)
    return Owner(host="an unknown host", pid=0, space="", born=None, token="unreadable", started="")  # noqa: S106


def _create(place: Path, owner: Owner) -> bool:
    """Create a file with its content in one go; False if it is there already."""
    place.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(asdict(owner)).encode()
    draft = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    try:
        draft.write_bytes(content)
        try:
            os.link(draft, place)
        except FileExistsError:
            return draft.stat().st_nlink == 2  # NFS may repeat a request that went through
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            return _create_bare(place, content)
        return True
    finally:
        draft.unlink(missing_ok=True)


def _create_bare(place: Path, content: bytes) -> bool:
    """Without hard links."""
    try:
        with place.open("xb", buffering=0) as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _alive(place: Path, owner: Owner) -> bool:
    """Whether an owner lives: looked up on this machine, by the age of its last beat elsewhere."""
    if owner.space and owner.space == _space():
        return _born(owner.pid) == owner.born and owner.born is not None  # even if it slept for hours
    probe = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    try:
        probe.write_bytes(b"")  # the disk's clock may differ from ours
        now = probe.stat().st_mtime
    except OSError:
        now = time.time()
    finally:
        probe.unlink(missing_ok=True)
    try:
        return now - place.stat().st_mtime <= STALE
    except OSError:
        return False
