from __future__ import annotations

import zlib

import pytest

from scene3d.io.binary import inflate


@pytest.mark.parametrize("window_bits", [15, -15])
def test_inflated_bytes_are_those_of_the_size_that_is_expected(window_bits: int) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, window_bits)
    data = packer.compress(b"splats" * 50) + packer.flush()
    assert inflate(data, 300, window_bits) == b"splats" * 50
    with pytest.raises(ValueError, match="expected 299 bytes, got 300 or more"):
        inflate(data, 299, window_bits)
    with pytest.raises(ValueError, match=r"expected 301 bytes, got 300$"):
        inflate(data, 301, window_bits)
    with pytest.raises(ValueError, match="cannot be inflated"):
        inflate(b"\xff" * 20, 300, window_bits)
