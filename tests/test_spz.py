"""SPZ, versions 2 to 4."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from format_files import small_scene

from scene3d.core.errors import FormatError
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.registry import read_scene, write_scene
from scene3d.io.spz import decode_spz, encode_spz, fractional_bits
from scene3d.ops import morton, quaternions

NAME = Path("a.spz")


def in_file_order(scene: Scene) -> Gaussians:
    return scene.payload.select(morton.order(scene.payload.means))


def angles_deg(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    dots = (quaternions.normalize(a.double()) * quaternions.normalize(b.double())).sum(dim=1).abs().clamp(max=1)
    return 2 * dots.acos().rad2deg()


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("n", [0, 1, 255, 257])
def test_any_count_comes_back(version: int, n: int) -> None:
    scene = small_scene(n, 2)
    back, truth = decode_spz(NAME, encode_spz(scene, NAME, version)).payload, in_file_order(scene)
    assert len(back) == n
    torch.testing.assert_close(back.means, truth.means, atol=0.5 / 4096 + 1e-6, rtol=0)
    torch.testing.assert_close(back.log_scales, truth.log_scales, atol=0.5 / 16 + 1e-6, rtol=0)
    torch.testing.assert_close(back.opacities, truth.opacities, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(back.sh0, truth.sh0, atol=0.5 / 255 / 0.15 + 1e-6, rtol=0)
    # Steps of 8 and 16 of 128, rounded twice.
    torch.testing.assert_close(back.shN[:, :3], truth.shN[:, :3], atol=4.5 / 128 + 1e-6, rtol=0)
    torch.testing.assert_close(back.shN[:, 3:], truth.shN[:, 3:], atol=8.5 / 128 + 1e-6, rtol=0)
    # xyz in steps of 1/127.5 says little about a small w; the smallest three have 9 bits each.
    assert n == 0 or float(angles_deg(back.quats, truth.quats).max()) < (16.0 if version == 2 else 0.3)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_the_antialiased_mark_survives(version: int) -> None:
    scene = small_scene(3, info=SceneInfo(antialiased=True))
    assert decode_spz(NAME, encode_spz(scene, NAME, version)).info.antialiased
    assert not decode_spz(NAME, encode_spz(small_scene(3), NAME, version)).info.antialiased


def test_every_version_holds_the_same_numbers() -> None:
    scene = small_scene(50, 3)
    three, four = (decode_spz(NAME, encode_spz(scene, NAME, version)).payload.params() for version in (3, 4))
    assert all(torch.equal(three[name], four[name]) for name in three)


def test_hand_packed_version_2_unpacks() -> None:
    header = struct.pack("<IIIBBBB", 0x5053474E, 2, 1, 1, 8, 1, 0)
    position = (256).to_bytes(3, "little") + (-128 & 0xFFFFFF).to_bytes(3, "little") + (0).to_bytes(3, "little")
    planes = position + bytes([255]) + bytes([255, 0, 128]) + bytes([160, 0, 255]) + bytes([255, 127, 128])
    scene = decode_spz(NAME, gzip.compress(header + planes + bytes([128, 0, 255] * 3)))
    gaussians = scene.payload
    assert scene.info.antialiased
    assert gaussians.means.tolist() == [[1.0, -0.5, 0.0]]
    assert gaussians.log_scales[0].tolist() == pytest.approx([0, -10, 5.9375])
    assert gaussians.sh0[0, 0].tolist() == pytest.approx([0.5 / 0.15, -0.5 / 0.15, (128 / 255 - 0.5) / 0.15], abs=1e-5)
    assert gaussians.quats[0].tolist() == pytest.approx([0, 1, -1 / 255, 1 / 255], abs=1e-4)
    assert gaussians.shN[0, 0].tolist() == pytest.approx([0, -1, 127 / 128])


def test_hand_packed_rotation_of_version_3_unpacks() -> None:
    # Largest is z (index 2); x = 0.5, y = -0.25, w = 0.
    fields = [round(0.5 * 2**0.5 * 511), 512 + round(0.25 * 2**0.5 * 511), 0]
    packed = (2 << 30) | (fields[0] << 20) | (fields[1] << 10) | fields[2]
    header = struct.pack("<IIIBBBB", 0x5053474E, 3, 1, 0, 12, 0, 0)
    scene = decode_spz(NAME, gzip.compress(header + bytes(9 + 1 + 3 + 3) + struct.pack("<I", packed)))
    expected = [0, 0.5, -0.25, (1 - 0.3125) ** 0.5]
    assert scene.payload.quats[0].tolist() == pytest.approx(expected, abs=2e-3)


def test_degree_4_loses_its_last_band() -> None:
    header = struct.pack("<IIIBBBB", 0x5053474E, 3, 1, 4, 12, 0, 0)
    scene = decode_spz(NAME, gzip.compress(header + bytes(9 + 1 + 3 + 3 + 4) + bytes(range(72))))
    assert scene.payload.sh_degree == 3
    assert scene.payload.shN[0, 14, 2] == pytest.approx((44 - 128) / 128)


@pytest.mark.parametrize(("scale", "bits"), [(1.0, 12), (1e-4, 19), (3e3, 8), (1e9, 0)])
def test_binary_places_follow_the_size_of_the_scene(scale: float, bits: int) -> None:
    payload = small_scene(200).payload
    moved = Gaussians(
        **{**payload.params(), "means": payload.means * scale, "log_scales": payload.log_scales + float(np.log(scale))}
    )
    assert abs(fractional_bits(moved) - bits) <= 1


def test_tiny_scenes_keep_their_shape(tmp_path: Path) -> None:
    payload = small_scene(100).payload
    tiny = Gaussians(**{**payload.params(), "means": payload.means * 1e-4, "log_scales": payload.log_scales - 9.2})
    write_scene(Scene(tiny), tmp_path / "a.spz")
    back = read_scene(tmp_path / "a.spz").payload
    truth = tiny.select(morton.order(tiny.means))
    assert float((back.means - truth.means).abs().max()) < 2e-6


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends within the header: expected 15 more bytes, got 0"),
        (b"PLY!" + bytes(40), "at byte 0: expected an SPZ file, which starts with NGSP"),
        (
            struct.pack("<IIIBBBB", 0x5053474E, 9, 1, 0, 12, 0, 5) + bytes(16),
            "at byte 4: expected version 1 to 4, got 9",
        ),
        (struct.pack("<IIIBBBB", 0x5053474E, 4, 1, 7, 12, 0, 5) + bytes(16), "degree 0 to 4, got 7"),
        (struct.pack("<IIIBBBB", 0x5053474E, 3, 1, 0, 12, 0, 5) + bytes(16), "expected gzip around version 3"),
        (struct.pack("<IIIBBBBI", 0x5053474E, 4, 1, 0, 12, 0, 2, 32) + bytes(12), "expected 5 streams, got 2"),
        (
            gzip.compress(struct.pack("<IIIBBBB", 0x5053474E, 3, 2**32 - 1, 3, 12, 0, 0), mtime=0),
            r"at byte 8: says 4294967295 Gaussians, \d+ bytes, which cannot be packed into",
        ),
        (b"\x1f\x8b" + bytes(20), "the gzip data is damaged"),
    ],
)
def test_what_is_wrong_is_told(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode_spz(NAME, data)


def test_a_zstd_bomb_is_refused() -> None:
    header = struct.pack("<IIIBBBBI", 0x5053474E, 4, 10**8, 0, 12, 0, 5, 32) + bytes(12)
    sizes = [9 * 10**8, 10**8, 3 * 10**8, 3 * 10**8, 4 * 10**8]
    table = b"".join(struct.pack("<QQ", 20, size) for size in sizes)
    with pytest.raises(FormatError, match="says that 20 bytes unpack to 900000000, which is too much"):
        decode_spz(NAME, header + table + bytes(100))


def test_version_5_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="version: expected 2, 3 or 4, got 5"):
        encode_spz(small_scene(), NAME, 5)
