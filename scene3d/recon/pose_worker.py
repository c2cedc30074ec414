"""The process in which pycolmap runs: `run_mapping` starts it, `main` is what it does.

It is a process of its own because loading pycolmap before Pillow's codecs corrupts the heap when a PNG is written (both
bring a zlib), and because COLMAP aborts its process on broken invariants. Child to parent: one JSON list a line on
stdout, [step, done, total, "database:table"]; where a table is named, the parent counts its rows from there on. At the
end comes work_dir/result.json.
"""

from __future__ import annotations

import json
import os
import queue
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scene3d.core.errors import BackendUnavailable, CaptureError
from scene3d.recon.pose_mapping import MappingJob, find_points, run_ladder

Progress = Callable[[str, int, int], None]

_MODULE = "scene3d.recon.pose_worker"
_NO_PYCOLMAP = 3
_LOG_TAIL = 3
POLL_SECONDS = 0.5


def run_mapping(job: MappingJob, progress: Progress | None = None) -> dict[str, Any]:
    """Run `job` in a child process; see pose_mapping.run_ladder and find_points for what comes back.

    Raises:
        BackendUnavailable: pycolmap is not installed.
        CaptureError: The child ended without a result.
    """
    work = Path(job.work_dir)
    (work / "job.json").write_text(job.to_json(), encoding="utf-8")
    log_path = work / "log.txt"
    with open(log_path, "wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", _MODULE, str(work / "job.json")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if job.is_verbose else log,
            env=_child_environment(),
            encoding="utf-8",
        )
        try:
            _follow(child, work, progress)
            code = child.wait()
        finally:
            # An interrupt or an error in `progress` must not leave the child computing.
            if child.poll() is None:
                child.kill()
                child.wait()
    result = work / "result.json"
    if code == 0 and result.exists():
        facts: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return facts
    if code == _NO_PYCOLMAP:
        raise BackendUnavailable("pycolmap", _tail(log_path), "Install it: pip install pycolmap")
    raise CaptureError(work, f"structure from motion ended {_ending(code)}: {_tail(log_path)}", _remedy(code))


def main(job_path: str) -> int:
    """What the child does. Returns its exit status."""
    # COLMAP's own prints must not mix with the protocol: they go to stderr.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = MappingJob.from_json(Path(job_path).read_text(encoding="utf-8"))
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()

    def emit(step: str, done: int, total: int, table: str) -> None:
        channel.write(json.dumps([step, done, total, table]) + "\n")
        channel.flush()

    try:
        import pycolmap  # noqa: F401
    except (ImportError, RuntimeError) as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        return _NO_PYCOLMAP
    facts = find_points(job, emit) if job.has_cameras else run_ladder(job, emit)
    (Path(job.work_dir) / "result.json").write_text(json.dumps(facts), encoding="utf-8")
    return 0


def _follow(child: subprocess.Popen[str], work: Path, progress: Progress | None) -> None:
    """Pass on what the child says until it closes its output."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    step, total, table, told = "", 0, "", 0
    while True:
        try:
            line = lines.get(timeout=POLL_SECONDS)
        except queue.Empty:
            done = min(_count_rows(work, table), total) if table else 0
            if progress is not None and done > told:
                told = done
                progress(step, done, total)
            continue
        if progress is not None and table and told < total:
            progress(step, total, total)
        if line is None:
            return
        step, told, total, table = json.loads(line)
        if progress is not None:
            progress(step, told, total)


def _count_rows(work: Path, table: str) -> int:
    """Rows of "database:table"; 0 while the database is locked or not there yet."""
    name, table_name = table.split(":")
    try:
        connection = sqlite3.connect(f"{(work / name).resolve().as_uri()}?mode=ro", uri=True, timeout=0.1)
    except sqlite3.Error:
        return 0
    try:
        return int(connection.execute(f"select count(*) from {table_name}").fetchone()[0])
    except sqlite3.Error:
        return 0
    finally:
        connection.close()


def _end_with_parent(parent: int) -> None:
    """End this process when its parent was killed: nobody waits for the result."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _child_environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def _ending(code: int) -> str:
    return f"with signal {-code}" if code < 0 else f"with status {code}"


def _remedy(code: int) -> str:
    if code == -9:
        return "The system probably ran out of memory: use --quality fast or --threads 1."
    return "Run again with --verbose to see COLMAP's log, or with --quality fast."


def _tail(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-_LOG_TAIL:]) or "no message"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
