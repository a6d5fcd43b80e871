"""Signals that ask this process to stop: a training run ends its step and saves first, anything else stops at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

NUMBERS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""What batch systems, terminals and Ctrl-C send; SIGUSR1 as SLURM's --signal=USR1@60 sends it before the time is up."""


class Stop:
    """Which signal has asked to stop, and whether something has to be finished first.

    Args:
        patient: Whether further signals are ignored; else a second one ends the process at once.
    """

    def __init__(self, patient: bool = False) -> None:
        self.number = 0
        self._patient, self._busy, self._pid = patient, False, os.getpid()

    def receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the form of a handler
        """Handle a signal."""
        if os.getpid() != self._pid or (self.number and self._patient):  # the first: a child that was just forked
            return
        self.number = int(number)
        if not self._patient:
            for each in NUMBERS:
                if signal.getsignal(each) == self.receive:
                    signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
        if not self._busy:
            leave(self.number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A signal within the block is only noted."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within `deferred`: a signal ends this block by an exception."""
        self._busy = False
        try:
            if self.number:
                leave(self.number)
            yield
        finally:
            self._busy = True


_stops: list[Stop] = []


@contextmanager
def heeded(patient: bool = False) -> Iterator[Stop]:
    """Heed signals within the block; as before at its end. Inside another such block it is the same `Stop`.

    Only the main thread can: elsewhere nothing changes. A signal that is ignored stays so (nohup, or in a shell's
    background).
    """
    if _stops or threading.current_thread() is not threading.main_thread():
        yield _stops[-1] if _stops and threading.current_thread() is threading.main_thread() else Stop()
        return
    stop = Stop(patient)
    before = {number: signal.getsignal(number) for number in NUMBERS}
    heard = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    _stops.append(stop)
    try:
        for number in heard:
            signal.signal(number, stop.receive)
        yield stop
    finally:
        _stops.clear()
        for number in heard:
            signal.signal(number, before[number])


def leave(number: int) -> NoReturn:
    """End as after a signal: KeyboardInterrupt for Ctrl-C, else the exit status 128 + number."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def leave_signals_to_parent() -> None:
    """In a process that loads data: go on till the parent ends it. Signals may reach a whole group of processes."""
    for number in set(NUMBERS) - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_by_parent, daemon=True).start()


def _end_by_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
