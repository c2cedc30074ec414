"""List what ptxas says of every CUDA kernel: registers, shared memory, spills, for each target. Needs nvcc, no GPU.

Prints a Markdown table; --doc writes it into a document between the marks that the document holds.
"""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro

from scene3d.core.errors import Scene3dError
from scene3d.io.atomic import write_text

SOURCES = Path(__file__).resolve().parents[1] / "cuda"
BEGIN, END = "<!-- registers: begin -->", "<!-- registers: end -->"
LIBRARY = "cub"  # its kernels are not ours
ENTRY = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\d+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
# A template's number, truth value or member of an enumeration.
VALUE = r"L(?:[a-z]|NS\d*_\d+[A-Za-z]+E)(\w*?)E"
SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Config:
    targets: tuple[int, ...] = (75, 80, 86, 89, 90)
    """Compute capabilities to compile for."""
    threads: int = 2
    """Compilers to run at once."""
    doc: Path | None = None
    """Markdown file to put the table into."""


@dataclass(frozen=True)
class Kernel:
    """One kernel for one target; sizes in bytes."""

    name: str
    target: int
    registers: int
    shared: int
    stack: int
    spilled: int


def compile_one(source: Path, target: int) -> list[Kernel]:
    """Compile a file for a target and read what ptxas reports."""
    arch = f"-gencode=arch=compute_{target},code=sm_{target}"
    command = [
        "nvcc",
        "-std=c++17",
        "-O3",
        arch,
        "-Xptxas=-v",
        "-I",
        str(SOURCES),
        "-c",
        str(source),
        "-o",
        "/dev/null",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Scene3dError(f"{source.name} does not compile for sm_{target}: {result.stderr.strip()[-2000:]}")
    return parse(result.stderr)


def parse(log: str) -> list[Kernel]:
    """Kernels in the messages of ptxas, those of libraries left out."""
    kernels = []
    for part in log.split("Compiling entry function")[1:]:
        entry, stack, used = ENTRY.search("Compiling entry function" + part), STACK.search(part), USED.search(part)
        if entry is None or stack is None or used is None:
            raise Scene3dError(f"ptxas: expected an entry with its stack and registers, got {part.strip()[:200]!r}")
        shared = SHARED.search(part)
        frame, stores, loads = (int(number) for number in stack.groups())
        name = demangled(entry[1])
        if not name.startswith(LIBRARY):
            kernels.append(
                Kernel(name, int(entry[2]), int(used[1]), int(shared[1]) if shared else 0, frame, stores + loads)
            )
    return kernels


def demangled(symbol: str) -> str:
    """`_ZN7scene3d3gpu...15backward_kernelILb1ELb0EEE...` to `backward_kernel<1, 0>`."""
    if "7scene3d3gpu" not in symbol:
        return LIBRARY
    names = symbol[symbol.index("7scene3d3gpu") + len("7scene3d3gpu") :]
    name = ""
    while match := re.match(r"(\d+)", names):
        name = names[match.end() : match.end() + int(match[1])]
        names = names[match.end() + int(match[1]) :]
    values = []
    if names.startswith("I"):
        rest = names[1:]
        while match := re.match(VALUE, rest):
            values.append(match[1])
            rest = rest[match.end() :]
    return f"{name}<{', '.join(values)}>" if values else name


def table(kernels: list[Kernel], targets: tuple[int, ...]) -> str:
    """One line a kernel."""
    found = {(k.name, k.target): k for k in kernels}
    lines = [
        f"| kernel | {' | '.join(f'sm_{t}' for t in targets)} | shared bytes | stack | spills |",
        f"| --- |{' ---: |' * (len(targets) + 3)}",
    ]
    for name in dict.fromkeys(k.name for k in kernels):
        mine = [found[name, t] for t in targets if (name, t) in found]
        registers = " | ".join(str(found[name, t].registers) if (name, t) in found else "" for t in targets)
        most = [max(getattr(k, field) for k in mine) for field in ("shared", "stack", "spilled")]
        lines.append(f"| `{name}` | {registers} | {' | '.join(str(n) for n in most)} |")
    return "\n".join(lines)


def put_into(doc: Path, text: str) -> None:
    """Replace what stands between the marks."""
    old = doc.read_text(encoding="utf-8")
    if BEGIN not in old or END not in old:
        raise Scene3dError(f"{doc}: expected the marks {BEGIN} and {END}")
    head, tail = old[: old.index(BEGIN) + len(BEGIN)], old[old.index(END) :]
    write_text(doc, f"{head}\n{text}\n{tail}")


def run(config: Config) -> None:
    jobs = [(source, target) for source in sorted(SOURCES.glob("gpu/*.cu")) for target in config.targets]
    with ThreadPoolExecutor(config.threads) as pool:
        kernels = [kernel for part in pool.map(lambda job: compile_one(*job), jobs) for kernel in part]
    text = table(sorted(kernels, key=lambda k: k.name), config.targets)
    if config.doc is None:
        print(text)
    else:
        put_into(config.doc, text)


if __name__ == "__main__":
    try:
        run(tyro.cli(Config, description=__doc__))
    except Scene3dError as error:
        sys.exit(str(error))
