"""Progress of a long loop on stderr: rate, time left and free fields.

On a terminal one line is redrawn in place; elsewhere (a log file, CI) a plain line appears about every ten seconds.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

TTY_INTERVAL = 0.1
LOG_INTERVAL = 10.0
# The rate is an exponential average over about this many seconds, so that the time left follows a change of pace.
RATE_WINDOW = 10.0


class Progress:
    """Counts steps of a loop and tells the user about it.

        with Progress(len(views), "evaluating") as progress:
            for view in views:
                progress.advance(psnr=f"{psnr:.2f} dB")

    Args:
        total: Steps to do; None where unknown.
        label: What is done, a few words.
        initial: Steps done before, by the run that this one resumes.
        stream: Where lines go; stderr by default.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        total: int | None,
        label: str,
        initial: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.label = label
        self.done = initial
        self.fields: dict[str, str] = {}
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._is_tty = not self._stream.closed and self._stream.isatty()
        self._start = self._drawn = self._measured = clock()
        self._initial = self._measured_done = initial
        self._rate = 0.0
        self._width = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def advance(self, steps: int = 1, **fields: str) -> None:
        """Count `steps` as done and set the free text fields shown behind the rate."""
        self.update(self.done + steps, **fields)

    def update(self, done: int, **fields: str) -> None:
        """Say that `done` steps are done in all."""
        self.done = done
        self.fields.update(fields)
        now = self._clock()
        if now - self._drawn >= (TTY_INTERVAL if self._is_tty else LOG_INTERVAL):
            self._measure(now)
            self._draw(now)

    def note(self, text: str) -> None:
        """Print a line above the progress line."""
        self._erase()
        self._write(text + "\n")

    def close(self) -> None:
        """Draw the last state and end the line."""
        now = self._clock()
        # Short loops say nothing at all in a log, as they say nothing a reader waits for.
        if self._is_tty or now - self._start >= LOG_INTERVAL:
            elapsed = max(now - self._start, 1e-9)
            self._rate = self._rate or (self.done - self._initial) / elapsed
            self._draw(now)
        if self._is_tty:
            self._write("\n")

    def line(self) -> str:
        """The state in one line."""
        count = f"{self.done}/{self.total}" if self.total is not None else f"{self.done}"
        words = [f"{self.label} {count}"]
        if self._rate > 0:
            words.append(rate_text(self._rate))
        if self.total is not None and self._rate > 0 and self.done < self.total:
            words.append(f"{duration_text((self.total - self.done) / self._rate)} left")
        words.extend(f"{name} {value}" for name, value in self.fields.items())
        return "  ".join(words)

    def _measure(self, now: float) -> None:
        seconds, steps = now - self._measured, self.done - self._measured_done
        if seconds <= 0 or steps <= 0:
            return
        weight = min(1.0, seconds / RATE_WINDOW) if self._rate else 1.0
        self._rate += weight * (steps / seconds - self._rate)
        self._measured, self._measured_done = now, self.done

    def _draw(self, now: float) -> None:
        self._drawn = now
        text = self.line()
        if not self._is_tty:
            self._write(text + "\n")
            return
        text = text[: max(shutil.get_terminal_size().columns - 1, 20)]
        padding = " " * max(self._width - len(text), 0)
        self._width = len(text)
        self._write(f"\r{text}{padding}")

    def _erase(self) -> None:
        if self._is_tty and self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # A closed pipe or terminal must not end hours of work.
            pass


def duration_text(seconds: float) -> str:
    """Seconds as a person says them: 8 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rate_text(per_second: float) -> str:
    """A rate with the unit that makes it readable: 61.2/s or 3.5 s each."""
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{1 / per_second:.1f} s each"
