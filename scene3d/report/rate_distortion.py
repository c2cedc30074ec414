"""Files of one scene side by side: bytes against fidelity, as a Markdown table, a picture and a page."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from html import escape

from PIL import Image, ImageDraw, ImageFont

from scene3d.report.html import page

WIDTH, HEIGHT, MARGIN = 1000, 620, 80
FONT_SIZE = 15
COLORS = {"format": (190, 80, 40), "method": (40, 90, 200)}
GRID = (225, 225, 225)
# Better than this is as good as equal: on one axis with it nothing else could be told apart.
MAX_SHOWN_DB = 90.0


@dataclass(frozen=True)
class Row:
    """One file.

    Attributes:
        name: Format or method, and at what goal.
        kind: "format" or "method".
        size_bytes: Of the file.
        n_splats: That it holds.
        psnr: Against the uncompressed render, dB, of the mean square error.
        ssim: Against the uncompressed render, mean of the views.
        drop_db: By how much PSNR against photos falls; None without photos.
        encode_seconds: Of writing; for methods with a search all of it.
        decode_seconds: Of reading.
        peak_mb: Memory of the process that wrote it, Python and torch included, megabytes; None where not measured.
    """

    name: str
    kind: str
    size_bytes: int
    n_splats: int
    psnr: float
    ssim: float
    drop_db: float | None
    encode_seconds: float
    decode_seconds: float
    peak_mb: float | None = None


def table(rows: list[Row], n_splats: int, source_bytes: int) -> str:
    """The rows as Markdown, largest first."""
    head, cells = _cells(rows, n_splats)
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([*lines, "", f"{n_splats:,} splats, source {source_bytes:,} bytes"])


def joined(runs: dict[str, list[Row]]) -> str:
    """Several scenes as one Markdown table, rows by name in the order of the first scene's sizes, the largest first."""
    names: dict[str, float] = {}
    for rows in runs.values():
        largest = max(row.size_bytes for row in rows)
        for row in rows:
            names.setdefault(row.name, row.size_bytes / largest)
    lines = ["| | " + " | ".join(runs) + " |", "| --- |" + " ---: |" * len(runs)]
    for name in sorted(names, key=lambda name: -names[name]):
        cells = [next((_short(row) for row in rows if row.name == name), "") for rows in runs.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(row: Row) -> str:
    fidelity = f"{row.psnr:.1f} dB" if math.isfinite(row.psnr) else "exact"
    return f"{row.size_bytes:,}, {fidelity}" + ("" if row.drop_db is None else f", {0.0 - row.drop_db:+.3f} dB")


def html_page(title: str, sentences: list[str], rows: list[Row], n_splats: int, told: str = "") -> str:
    """A page of its own.

    Args:
        title: Above all.
        sentences: What was done, a paragraph each.
        rows: For plot and table.
        n_splats: Of the scene.
        told: Further lines in columns, shown as they are.
    """
    head, cells = _cells(rows, n_splats)
    picture = io.BytesIO()
    plot(rows, title).save(picture, "PNG", optimize=True)
    uri = base64.b64encode(picture.getvalue()).decode()
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
    return page(
        title,
        [
            f"<header><h1>{escape(title)}</h1></header>",
            *(f"<p>{escape(sentence)}</p>" for sentence in sentences),
            "<h2>Size and fidelity</h2>",
            f'<p><img alt="PSNR over bytes" style="max-width:100%" src="data:image/png;base64,{uri}"></p>',
            f"<table><thead><tr>{''.join(f'<th>{escape(word)}</th>' for word in head)}</tr></thead>",
            f"<tbody>{body}</tbody></table>",
            f"<h2>What it cost</h2><pre>{escape(told)}</pre>" if told else "",
        ],
    )


def plot(rows: list[Row], title: str) -> Image.Image:
    """PSNR over bytes, the latter on a logarithmic scale; goals of our own method are joined to a curve."""
    shown = [row for row in rows if math.isfinite(row.psnr) and row.psnr < MAX_SHOWN_DB]
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=FONT_SIZE)
    heading = f"{title}: PSNR against the uncompressed render over the size of the file"
    draw.text((MARGIN, 20), heading, fill="black", font=font)
    if not shown:
        return image
    frame = _Frame.around(shown)
    _draw_grid(draw, frame, font)
    curve = sorted(frame.place(row) for row in shown if row.kind == "method" and row.name.endswith(" dB"))
    if len(curve) > 1:
        draw.line(curve, fill=COLORS["method"], width=2)
    taken: list[tuple[float, float, float]] = []
    for row in sorted(shown, key=lambda row: row.psnr):
        x, y = frame.place(row)
        draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=COLORS[row.kind])
        width = draw.textlength(row.name, font=font)
        x_text, y_text = _free_place(x + 8, y - FONT_SIZE / 2, width, taken)
        draw.text((x_text, y_text), row.name, fill=COLORS[row.kind], font=font)
    return image


@dataclass(frozen=True)
class _Frame:
    """What the axes span: logarithms of bytes, and dB."""

    x_low: float
    x_high: float
    y_low: int
    y_high: int

    @classmethod
    def around(cls, rows: list[Row]) -> _Frame:
        sizes, psnrs = [math.log10(max(row.size_bytes, 1)) for row in rows], [row.psnr for row in rows]
        y_low, y_high = math.floor(min(psnrs) / 5) * 5, math.ceil(max(psnrs) / 5) * 5
        # Names stand to the right of their points.
        return cls(min(sizes) - 0.1, max(sizes) + 0.3, y_low, max(y_high, y_low + 5))

    def place(self, row: Row) -> tuple[float, float]:
        return self.x(row.size_bytes), self.y(row.psnr)

    def x(self, size_bytes: float) -> float:
        share = (math.log10(max(size_bytes, 1)) - self.x_low) / (self.x_high - self.x_low)
        return MARGIN + share * (WIDTH - 2 * MARGIN)

    def y(self, psnr: float) -> float:
        return HEIGHT - MARGIN - (psnr - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - 2 * MARGIN)


def _draw_grid(draw: ImageDraw.ImageDraw, frame: _Frame, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> None:
    for psnr in range(frame.y_low, frame.y_high + 1, 5):
        y = frame.y(psnr)
        draw.line([MARGIN, y, WIDTH - MARGIN, y], fill=GRID)
        draw.text((MARGIN - 58, y - FONT_SIZE / 2), f"{psnr} dB", fill="black", font=font)
    for size in (digit * 10**exponent for exponent in range(2, 11) for digit in (1, 2, 5)):
        if frame.x_low <= math.log10(size) <= frame.x_high:
            x = frame.x(size)
            draw.line([x, MARGIN, x, HEIGHT - MARGIN], fill=GRID)
            text = f"{size / 1e6:g} MB" if size >= 1e6 else f"{size / 1e3:g} kB"
            draw.text((x - 22, HEIGHT - MARGIN + 8), text, fill="black", font=font)


def _free_place(
    x: float, y: float, width: float, taken: list[tuple[float, float, float]]
) -> tuple[float, float]:  # of a name [left, top, right of those before]
    while any(abs(y - other) < FONT_SIZE and x < right and left < x + width for left, other, right in taken):
        y -= 3
    taken.append((x, y, x + width))
    return x, y


def _cells(rows: list[Row], n_splats: int) -> tuple[list[str], list[list[str]]]:
    has_drop, has_peak = (any(getattr(row, name) is not None for row in rows) for name in ("drop_db", "peak_mb"))
    head = ["", "bytes", "B/splat", "PSNR", "SSIM", "drop", "encode", "decode", "memory"]
    is_shown = [word not in (("drop",) * (not has_drop) + ("memory",) * (not has_peak)) for word in head]
    cells = []
    for row in sorted(rows, key=lambda row: -row.size_bytes):
        texts = [
            row.name,
            f"{row.size_bytes:,}",
            f"{row.size_bytes / max(n_splats, 1):.1f}",
            f"{row.psnr:.1f} dB" if math.isfinite(row.psnr) else "exact",
            f"{row.ssim:.4f}",
            "" if row.drop_db is None else f"{row.drop_db:.3f} dB",
            f"{row.encode_seconds:.2f} s",
            f"{row.decode_seconds:.2f} s",
            "" if row.peak_mb is None else f"{row.peak_mb:.0f} MB",
        ]
        cells.append([text for text, shown in zip(texts, is_shown, strict=True) if shown])
    return [word for word, shown in zip(head, is_shown, strict=True) if shown], cells
