"""Reading .ksplat."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from format_files import ksplat_bytes, small_scene

from scene3d.core.errors import FormatError
from scene3d.io.registry import read_scene

# By compression: position, log scale, quaternion, harmonics.
TOLERANCES = [(1e-6, 1e-5, 1e-6, 1e-6), (2e-4, 1e-3, 2e-3, 1e-3), (2e-4, 1e-3, 2e-3, 2.1 / 255)]


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("n", [1, 16, 40])
def test_rows_come_back(mode: int, degree: int, n: int, tmp_path: Path) -> None:
    truth = small_scene(n, degree, spread=1.0).payload
    (tmp_path / "a.ksplat").write_bytes(ksplat_bytes(truth, mode))
    back, (mean, scale, quat, rest) = read_scene(tmp_path / "a.ksplat").payload, TOLERANCES[mode]
    torch.testing.assert_close(back.means, truth.means, atol=mean, rtol=0)
    torch.testing.assert_close(back.log_scales, truth.log_scales, atol=scale, rtol=0)
    torch.testing.assert_close(back.quats, truth.quats, atol=quat, rtol=0)
    torch.testing.assert_close(back.opacities, truth.opacities, atol=0.51 / 255, rtol=0)
    torch.testing.assert_close(back.shN, truth.shN, atol=rest, rtol=0)


@pytest.mark.parametrize(
    ("place", "layout", "value", "message"),
    [
        (0, "B", 7, "at byte 0: expected version 0.1 or a later 0, got 7.1"),
        (20, "H", 3, "at byte 20: expected compression 0, 1 or 2, got 3"),
        (4, "I", 10**6, "at byte 4: expected at most 65536 sections, got 1000000"),
        (4, "I", 60_000, "ends within the headers of its 60000 sections"),
        (16, "I", 39, "at byte 16: expected 39 Gaussians, got 40 in 1 sections"),
        (4096, "I", 41, "a section holds 41 of at most 40"),
        (4096 + 40, "H", 4, "expected degree 0 to 3, got 4"),
        (4096 + 12, "I", 2**31, "ends within a section"),
        (4096 + 36, "I", 2**31, "ends within a section"),
        (4096 + 32, "I", 0, "do not fit into 3 buckets"),
        (4096 + 20, "H", 16, "expected buckets of 12 bytes, got 16"),
    ],
)
def test_what_is_wrong_is_told(place: int, layout: str, value: int, message: str, tmp_path: Path) -> None:
    data = bytearray(ksplat_bytes(small_scene(40, 1).payload, 1))
    if "buckets" in message and layout == "H":
        data += bytes(100)
    struct.pack_into("<" + layout, data, place, value)
    if place == 4096 + 32:
        struct.pack_into("<I", data, 4096 + 8, 4)
    (tmp_path / "a.ksplat").write_bytes(data)
    with pytest.raises(FormatError, match=message):
        read_scene(tmp_path / "a.ksplat")


def test_a_header_alone_is_an_empty_scene(tmp_path: Path) -> None:
    data = bytearray(ksplat_bytes(small_scene(1, 0).payload, 0)[:4096])
    struct.pack_into("<IIII", data, 4, 0, 0, 0, 0)
    (tmp_path / "a.ksplat").write_bytes(data)
    assert len(read_scene(tmp_path / "a.ksplat").payload) == 0
