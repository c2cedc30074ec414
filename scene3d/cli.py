"""Command line: `scene3d <command> ...`. A table of commands; only the module of the chosen one is imported.

Exit codes: 0 done, 1 an error told in one line, 2 wrong usage, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scene3d import __version__
from scene3d.core.errors import Scene3dError
from scene3d.core.interrupt import Terminated, terminable


@dataclass(frozen=True)
class Command:
    """A stage as the user calls it.

    Attributes:
        module: Module that offers Config and run(config).
        summary: One line for --help.
    """

    module: str
    summary: str


COMMANDS = {
    "run": Command("scene3d.stages.run", "photos or a capture to a scene, pictures and a report; the whole chain"),
    "demo": Command("scene3d.stages.run", "the same chain on the bundled sample capture"),
    "pose": Command("scene3d.stages.pose", "find the cameras of plain photos or of a video (structure from motion)"),
    "fit": Command("scene3d.stages.fit", "fit Gaussian splats or a radiance field to a posed capture"),
    "evaluate": Command("scene3d.stages.evaluate", "measure a scene against the held-out photos"),
    "render": Command("scene3d.stages.render", "render images or a video of a scene"),
    "shell": Command("scene3d.stages.shell", "put two meshes around a scene: fields render faster in between"),
    "mesh": Command("scene3d.stages.mesh", "turn a scene into a textured mesh: .glb, .ply, .obj, .usdz"),
    "sdf": Command("scene3d.stages.sdf", "keep a mesh as signed distances in a small file, or mesh such a file"),
    "report": Command("scene3d.stages.report", "one HTML page about a run"),
    "export": Command("scene3d.stages.export", "write a scene in another format, or as one self-contained web page"),
    "compress": Command("scene3d.stages.compress", "make a scene small: an .s3d file at a stated quality or size"),
    "compare": Command("scene3d.stages.compare", "say how two scenes differ: sizes, and pictures from the same places"),
    "view": Command("scene3d.stages.view", "look at a scene in the browser, rendered here"),
    "convert": Command("scene3d.stages.convert", "move, crop, filter and simplify a scene, in the order given"),
    "info": Command("scene3d.stages.info", "what is in a scene file or in a capture"),
    "doctor": Command("scene3d.stages.doctor", "what this machine has, what is missing, and the remedy"),
}
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
EXIT_TERMINATED = 143
INTERRUPTED = "\nscene3d: interrupted. What was finished is kept; the same command goes on from there."
OUT_OF_MEMORY = (
    "out of memory. Use smaller images (--data-factor or --max-size), fewer Gaussians (--strategy.cap-max), "
    "a --memory-limit that refuses in time, or close other programs"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit code. Wrong options of a command leave through SystemExit(2), its --help through SystemExit(0).
    """
    args = list(sys.argv[1:] if argv is None else argv)
    shows_traceback = "--traceback" in args
    args = [arg for arg in args if arg != "--traceback"]
    if not args or args[0] in ("-h", "--help", "help"):
        return _guarded(lambda: print(_help()), shows_traceback)
    if args[0] in ("-V", "--version"):
        return _guarded(lambda: print(f"scene3d {__version__}"), shows_traceback)
    if args[0] not in COMMANDS:
        print(_unknown(args[0]), file=sys.stderr)
        return EXIT_USAGE
    return _guarded(lambda: _run_stage(args[0], args[1:]), shows_traceback)


def _run_stage(name: str, args: list[str]) -> None:
    import tyro

    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    logging.getLogger("scene3d").setLevel(logging.INFO)
    stage = importlib.import_module(COMMANDS[name].module)
    stage.run(tyro.cli(stage.Config, prog=f"scene3d {name}", description=stage.__doc__, args=args))


def _guarded(action: Callable[[], None], shows_traceback: bool) -> int:
    """Run `action`; turn what went wrong into one line on stderr and an exit code."""
    try:
        with terminable():
            action()
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # The reader of our output (head, less) has left. Python would complain again when it closes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt as stop:
        print(INTERRUPTED, file=sys.stderr)
        return EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED
    except Exception as error:
        message = _message(error)
        if shows_traceback or message is None:
            raise
        print(f"scene3d: error: {message}", file=sys.stderr)
        return EXIT_ERROR


def _message(error: Exception) -> str | None:
    """What to tell the user, None for what is a fault of this program and deserves its stack trace."""
    if isinstance(error, MemoryError) or _is_torch_out_of_memory(error):
        # Our own native code says what needed how much, and what to do about it.
        return str(error) if isinstance(error, MemoryError) and ". " in str(error) else OUT_OF_MEMORY
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("scene3d"):
        package = error.name.split(".")[0]
        return f"the Python package {package!r} is missing. Install it: {sys.executable} -m pip install {package}"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror.lower()}"
    if isinstance(error, (Scene3dError, ValueError, OSError)):
        return str(error) or type(error).__name__
    return None


def _is_torch_out_of_memory(error: Exception) -> bool:
    # torch reports a failed allocation on the CPU as a plain RuntimeError.
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def _help() -> str:
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: scene3d <command> [options]",
            "",
            "Photos in, compact 3D Gaussian-splat scenes out.",
            "",
            *lines,
            "",
            "scene3d <command> --help lists its options; --version prints the version; --traceback shows the stack "
            "of an error.",
        ]
    )


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else f" Commands: {', '.join(COMMANDS)}."
    return f"scene3d: unknown command {name!r}.{hint}"
