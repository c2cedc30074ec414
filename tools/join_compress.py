"""One table out of several runs of tools/bench_compress.py: a row a format or method, a column a scene.

    python tools/join_compress.py fox=runs/fox guitar=runs/guitar

Cells say bytes, PSNR against the uncompressed render, and what PSNR against photos changes by. Below stand
the times and the memory of the first scene.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from scene3d.report.rate_distortion import Row, joined, table


def main(arguments: list[str]) -> None:
    """Print the table as Markdown."""
    if not arguments or not all("=" in argument for argument in arguments):
        sys.exit(__doc__)
    runs = {name: rows_of(Path(folder)) for name, _, folder in (argument.partition("=") for argument in arguments)}
    print(joined(runs))
    name, rows = next(iter(runs.items()))
    print(f"\n{name}:\n\n{table(rows, max(row.n_splats for row in rows), max(row.size_bytes for row in rows))}")


def rows_of(folder: Path) -> list[Row]:
    """The rows.json of a run."""
    data = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    return [Row(**{**row, "psnr": math.inf if row["psnr"] is None else row["psnr"]}) for row in data]


if __name__ == "__main__":
    main(sys.argv[1:])
