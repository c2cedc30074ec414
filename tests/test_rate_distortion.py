"""Tables, plots and pages of files side by side."""

from __future__ import annotations

import math

import numpy as np

from scene3d.report.rate_distortion import Row, html_page, joined, plot, table

EXACT = Row(".ply", "format", 2_480_000, 10_000, math.inf, 1.0, None, 0.1, 0.2)
SMALL = Row(".s3d 0.1 dB", "method", 60_000, 9_990, 43.21, 0.9871, 0.098, 4.0, 0.05, 512.0)
TINY = Row(".s3d 0.5 dB", "method", 30_000, 9_000, 36.0, 0.95, 0.49, 4.0, 0.05, 512.0)


def test_the_table_lists_the_largest_first_and_says_what_is_exact() -> None:
    lines = table([SMALL, EXACT], 10_000, 2_480_000).splitlines()
    assert lines[0] == "|  | bytes | B/splat | PSNR | SSIM | drop | encode | decode | memory |"
    assert lines[2] == "| .ply | 2,480,000 | 248.0 | exact | 1.0000 |  | 0.10 s | 0.20 s |  |"
    assert lines[3] == "| .s3d 0.1 dB | 60,000 | 6.0 | 43.2 dB | 0.9871 | 0.098 dB | 4.00 s | 0.05 s | 512 MB |"
    assert lines[-1] == "10,000 splats, source 2,480,000 bytes"


def test_columns_that_nobody_filled_are_left_out() -> None:
    assert table([EXACT], 10_000, 1).splitlines()[0] == "|  | bytes | B/splat | PSNR | SSIM | encode | decode |"


def test_scenes_stand_side_by_side() -> None:
    lines = joined({"fox": [SMALL, EXACT], "chair": [TINY, EXACT]}).splitlines()
    assert lines[0] == "| | fox | chair |"
    assert lines[2:] == [
        "| .ply | 2,480,000, exact | 2,480,000, exact |",
        "| .s3d 0.1 dB | 60,000, 43.2 dB, -0.098 dB |  |",
        "| .s3d 0.5 dB |  | 30,000, 36.0 dB, -0.490 dB |",
    ]


def test_the_plot_shows_what_is_not_exact() -> None:
    both, one, none = (np.asarray(plot(rows, "a scene")) for rows in ([SMALL, TINY], [SMALL], [EXACT]))
    blue = [int(((image == (40, 90, 200)).all(axis=2)).sum()) for image in (both, one, none)]
    # The curve between two goals is longer than a dot.
    assert blue[0] > blue[1] + 100 > 100
    assert blue[2] == 0


def test_the_page_needs_nothing_else_and_escapes_names() -> None:
    text = html_page("<scene>", ["a < b"], [EXACT, SMALL], 10_000, "means  12 bytes")
    assert "&lt;scene&gt;" in text
    assert "<p>a &lt; b</p>" in text
    assert "data:image/png;base64," in text
    assert "<td>43.2 dB</td>" in text
    assert "<pre>means  12 bytes</pre>" in text
    assert "http" not in text.split("</style>")[1]
