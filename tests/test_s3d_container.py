"""The .s3d container: what goes in comes out, and no damaged byte gets through."""

import struct
import zlib

import pytest

from scene3d.core.errors import FormatError
from scene3d.core.scene import SceneInfo
from scene3d.io.s3d import read_s3d
from scene3d.io.s3d_container import FREE_ITEMS, ITEMS_PER_BYTE, Container, container_bytes, read_container

INFO = SceneInfo(True, (0.0, 0.1, -1.0), "fox", "scene3d 1", ("a note", "ä"))


def small_container():
    return Container("splats", "none", 7, {"one": b"abc", "two": b"", "three": bytes(range(40))}, INFO, {"step": 0.1})


def read_bytes(data, folder):
    (folder / "a.s3d").write_bytes(data)
    return read_container(folder / "a.s3d")


def test_what_goes_in_comes_out(tmp_path):
    assert read_bytes(container_bytes(small_container()), tmp_path) == small_container()


def test_every_truncation_is_a_format_error(tmp_path):
    data = container_bytes(small_container())
    for size in range(len(data)):
        with pytest.raises(FormatError):
            read_bytes(data[:size], tmp_path)


def test_every_flipped_bit_is_a_format_error(tmp_path):
    data = container_bytes(small_container())
    for i in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[i // 8] ^= 1 << i % 8
        with pytest.raises(FormatError):
            read_bytes(bytes(flipped), tmp_path)


def test_bytes_after_the_end_are_a_format_error(tmp_path):
    with pytest.raises(FormatError, match="follow the last chunk"):
        read_bytes(container_bytes(small_container()) + b"x", tmp_path)


def test_many_cheap_items_are_padded_so_that_the_file_bounds_the_memory(tmp_path):
    container = Container("splats", "none", 10**6, {"one": b"abc"})
    read = read_bytes(container_bytes(container), tmp_path)
    assert read.n_items == 10**6
    assert FREE_ITEMS + ITEMS_PER_BYTE * sum(map(len, read.chunks.values())) >= 10**6


def forged(header, chunks=0):
    head = b"\x89S3D\r\n\x1a\n" + struct.pack("<HHII", 1, 0, len(header), chunks) + header
    return head + struct.pack("<I", zlib.crc32(head))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b'{"kind":"splats","codec":"none","n_items":99999999999,"info":{},"meta":{}}', "99999999999 items"),
        (b'{"kind":"splats","codec":"none","n_items":-1,"info":{},"meta":{}}', "-1 items"),
        (b'{"kind":"splats","codec":"none","n_items":"x","info":{},"meta":{}}', "'x' items"),
        (b'{"kind":"splats","codec":3,"n_items":0,"info":{},"meta":{}}', "not what .s3d holds"),
        (b'{"kind":"splats","codec":"none","n_items":0,"info":{"up":[1]},"meta":{}}', "not what .s3d holds"),
        (b"[]", "not what .s3d holds"),
        (b"[" * 100_000, "not what .s3d holds"),
        (b"\xff", "not what .s3d holds"),
    ],
)
def test_a_forged_header_is_a_format_error(tmp_path, header, message):
    with pytest.raises(FormatError, match=message):
        read_bytes(forged(header), tmp_path)


def test_a_huge_number_of_chunks_is_refused_before_it_is_read(tmp_path):
    with pytest.raises(FormatError, match="says 4294967295 chunks"):
        read_bytes(forged(b"{}", 2**32 - 1), tmp_path)


def test_another_version_is_told(tmp_path):
    data = bytearray(container_bytes(small_container()))
    data[8] = 2
    with pytest.raises(FormatError, match=r"version 2\.0 of \.s3d"):
        read_bytes(bytes(data), tmp_path)


def test_other_files_are_told(tmp_path):
    with pytest.raises(FormatError, match=r"expected a \.s3d file"):
        read_bytes(b"ply\n", tmp_path)


@pytest.mark.parametrize(("kind", "codec"), [("splats", "none"), ("song", "context")])
def test_unknown_kinds_and_codecs_are_told(tmp_path, kind, codec):
    (tmp_path / "a.s3d").write_bytes(container_bytes(Container(kind, codec, 0, {})))
    with pytest.raises(FormatError, match="Use a newer scene3d"):
        read_s3d(tmp_path / "a.s3d")
