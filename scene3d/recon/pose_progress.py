"""Progress of a run of several steps: one progress line a step."""

from __future__ import annotations

from types import TracebackType

from scene3d.core.progress import Progress


class StepProgress:
    """Turns calls (step, done, total) into one Progress after the other.

    with StepProgress() as progress:
        estimate_poses(photos, out, settings, progress)
    """

    def __init__(self) -> None:
        self._step = ""
        self._line: Progress | None = None

    def __enter__(self) -> StepProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __call__(self, step: str, done: int, total: int) -> None:
        """Say that `done` of `total` of `step` are done; a new step, or one that starts again, gets a new line."""
        if self._line is None or step != self._step or done < self._line.done or total != self._line.total:
            self._close()
            self._step, self._line = step, Progress(total, step)
        self._line.update(done)

    def _close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
