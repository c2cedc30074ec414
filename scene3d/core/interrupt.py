"""Clean stops: Ctrl-C and SIGTERM ask a loop to end at its next step; a second Ctrl-C ends it at once. Elsewhere both
end a command on the spot, through all that tidies up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """Whether, and by which signal, a stop was asked for."""

    signal_number: int = 0

    def __call__(self) -> bool:
        return self.signal_number != 0

    @property
    def exit_code(self) -> int:
        """What a shell expects of a program that a signal ended."""
        return 128 + self.signal_number


class Terminated(KeyboardInterrupt):
    """SIGTERM came: ends what runs as Ctrl-C does."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise Terminated on SIGTERM inside of the block, where nothing else catches it; only in the main thread."""
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM inside of the block. Outside of the main thread nothing is caught."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before: list[Callable[[int, FrameType | None], object] | int | None] = [signal.getsignal(n) for n in numbers]

    def note(number: int, frame: FrameType | None) -> None:
        request.signal_number = number
        for n, handler in zip(numbers, before, strict=True):
            signal.signal(n, handler if handler is not None else signal.SIG_DFL)

    for number in numbers:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for n, handler in zip(numbers, before, strict=True):
            signal.signal(n, handler if handler is not None else signal.SIG_DFL)
