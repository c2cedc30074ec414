"""The "context" codec: encoder and decoder agree to the bit, whatever the scene; damaged files are told."""

import contextlib
import json
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from scene3d import _cpu
from scene3d.compress.context_plan import make_plan
from scene3d.compress.sensitivity import Sensitivity
from scene3d.core.errors import FormatError
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io import s3d_context
from scene3d.io.registry import read_scene, write_scene
from scene3d.io.s3d_container import Container, container_bytes, write_container
from scene3d.ops import quaternions
from scene3d.ops.threads import available_threads, set_threads

DEPTH = 12
# Steps at the fine setting are far below these.
FINE = 1e-3


def random_gaussians(n, sh_degree=0, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return Gaussians(
        means=normal(n, 3),
        quats=normal(n, 4),
        log_scales=normal(n, 3) - 4,
        opacity_logits=normal(n),
        sh0=normal(n, 1, 3),
        shN=0.2 * normal(n, (sh_degree + 1) ** 2 - 1, 3),
    )


def random_sensitivity(gaussians, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def positive(*shape):
        return torch.rand(*shape, generator=generator) + 0.1

    n = len(gaussians)
    rows = (
        positive(n, 3),
        positive(n, 3),
        positive(n, 3),
        positive(n),
        positive(n),
        positive(n, gaussians.shN.shape[1]),
    )
    return Sensitivity(*rows)


def encoded(gaussians, distortion=1e-4, depth=DEPTH):
    plan = make_plan(gaussians, random_sensitivity(gaussians), distortion, depth)
    chunks, meta = s3d_context.encode_context(plan.arranged, plan.frame, plan.tables, plan.rules)
    container = Container("splats", s3d_context.CODEC, len(gaussians), chunks, SceneInfo(antialiased=True), meta)
    return container, s3d_context.to_gaussians(plan.arranged.fixed, plan.frame), plan.arranged.order


def assert_same(a, b):
    assert all(torch.equal(x, y) for x, y in zip(a.params().values(), b.params().values(), strict=True))


@pytest.mark.parametrize("n", [0, 1, 2, 257, 5000])
@pytest.mark.parametrize("sh_degree", [0, 3])
def test_a_reader_sees_what_the_encoder_saw(tmp_path, n, sh_degree):
    container, seen, _ = encoded(random_gaussians(n, sh_degree))
    write_container(container, tmp_path / "a.s3d")
    read = read_scene(tmp_path / "a.s3d")
    assert read.info.antialiased
    assert_same(read.payload, seen)


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
def test_fine_steps_give_the_scene_back(sh_degree):
    original = random_gaussians(300, sh_degree)
    _, seen, order = encoded(original, distortion=1e-9)
    original = original.select(torch.from_numpy(order))
    by_length = original.log_scales.sort(dim=1, descending=True).values
    torch.testing.assert_close(seen.means, original.means, atol=FINE, rtol=0)
    torch.testing.assert_close(seen.log_scales, by_length, atol=FINE, rtol=0)
    torch.testing.assert_close(seen.opacities, original.opacities, atol=FINE, rtol=0)
    torch.testing.assert_close(seen.sh0, original.sh0, atol=FINE, rtol=0)
    torch.testing.assert_close(seen.shN, original.shN, atol=FINE, rtol=0)
    shapes = [quaternions.to_rotmat(g.quats) * g.scales[:, None] for g in (seen, original)]
    covariances = [s @ s.transpose(1, 2) for s in shapes]
    torch.testing.assert_close(*covariances, atol=FINE * float(covariances[1].abs().max()), rtol=0)


def test_coarser_steps_make_smaller_files():
    gaussians = random_gaussians(3000, 1)
    sizes = [len(container_bytes(encoded(gaussians, distortion)[0])) for distortion in (1e-8, 1e-6, 1e-4, 1e-2)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[3] < sizes[0] / 2


def test_bytes_do_not_depend_on_threads():
    gaussians = random_gaussians(3000, 2)
    try:
        files = []
        for n_threads in (1, 2, 5):
            set_threads(n_threads)
            files.append(container_bytes(encoded(gaussians)[0]))
    finally:
        set_threads(available_threads())
    assert files[0] == files[1] == files[2]


def test_one_place_and_far_outliers_are_no_trouble(tmp_path):
    gaussians = random_gaussians(600)
    gaussians.means[:300] = 0.5
    gaussians.means[-2:] = torch.tensor([[1e6, 0.0, 0.0], [0.0, -1e6, 3.0]])
    container, seen, _ = encoded(gaussians, depth=20)
    write_container(container, tmp_path / "a.s3d")
    assert_same(read_scene(tmp_path / "a.s3d").payload, seen)


def test_extreme_numbers_stay_finite(tmp_path):
    gaussians = random_gaussians(40, 1)
    gaussians.opacity_logits[:4] = torch.tensor([200.0, -200.0, 20.0, -20.0])
    gaussians.log_scales[:3] = torch.tensor([[-90.0, 80.0, 0.0], [-20.0, -20.0, -20.0], [5.0, 5.0, 5.0]])
    gaussians.quats[:2] = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 1e-30, 0.0, 0.0]])
    gaussians.sh0[:2] = 1e6
    container, seen, _ = encoded(gaussians)
    write_container(container, tmp_path / "a.s3d")
    assert read_scene(tmp_path / "a.s3d").payload.is_finite().all()
    assert_same(read_scene(tmp_path / "a.s3d").payload, seen)


def test_every_truncation_and_flipped_bits_are_format_errors(tmp_path):
    whole = container_bytes(encoded(random_gaussians(5, 1))[0])
    path = tmp_path / "a.s3d"
    for size in range(0, len(whole), 3):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError):
            read_scene(path)
    for i in range(0, 8 * len(whole), 41):
        flipped = bytearray(whole)
        flipped[i // 8] ^= 1 << i % 8
        path.write_bytes(bytes(flipped))
        with pytest.raises(FormatError):
            read_scene(path)


def forged(container, **changes):
    """The file of a container with some of its meta replaced, checksums and all."""
    return container_bytes(replace(container, meta={**container.meta, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": 21},
        {"depth": -1},
        {"depth": "deep"},
        {"sh_degree": 9},
        {"low": [0, 0]},
        {"low": [0, 0, "x"]},
        {"size": None},
        {"size": 0},
    ],
)
def test_forged_numbers_are_format_errors(tmp_path, changes):
    (tmp_path / "a.s3d").write_bytes(forged(encoded(random_gaussians(20, 1))[0], **changes))
    with pytest.raises(FormatError, match="is not what the codec 'context-2' writes"):
        read_scene(tmp_path / "a.s3d")


@pytest.mark.parametrize(
    "model",
    [
        b"",
        b"no deflate",
        zlib.compress(bytes(10), wbits=-15),
        zlib.compress(bytes(10**6), wbits=-15),
        zlib.compress(b"\xff\x7f" * 560, wbits=-15),
    ],
)
def test_forged_tables_are_format_errors(tmp_path, model):
    container, _, _ = encoded(random_gaussians(20))
    forgery = replace(container, chunks={**container.chunks, "model": model})
    (tmp_path / "a.s3d").write_bytes(container_bytes(forgery))
    with pytest.raises(FormatError, match="model: "):
        read_scene(tmp_path / "a.s3d")


def test_columns_that_follow_others_cost_less():
    gaussians = random_gaussians(3000)
    following = replace(gaussians, log_scales=gaussians.log_scales[:, :1] + torch.tensor([0.0, -0.5, -1.0]))
    sizes = [len(encoded(scene)[0].chunks["scale"]) for scene in (gaussians, following)]
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize("name", ["model", "octree", "classes", "scale", "rotation", "position", "color", "sh"])
def test_a_missing_chunk_is_a_format_error(tmp_path, name):
    container, _, _ = encoded(random_gaussians(20, 1))
    left = {key: data for key, data in container.chunks.items() if key != name}
    (tmp_path / "a.s3d").write_bytes(container_bytes(replace(container, chunks=left)))
    with pytest.raises(FormatError):
        read_scene(tmp_path / "a.s3d")


def test_a_wrong_count_is_a_format_error(tmp_path):
    container, _, _ = encoded(random_gaussians(20))
    for n in (0, 19, 21, 4000):
        (tmp_path / "a.s3d").write_bytes(container_bytes(replace(container, n_items=n)))
        with pytest.raises(FormatError):
            read_scene(tmp_path / "a.s3d")


def test_random_bytes_in_sound_chunks_never_crash(tmp_path):
    container, _, _ = encoded(random_gaussians(60, 1))
    generator = torch.Generator().manual_seed(5)
    for name in container.chunks:
        data = torch.randint(0, 256, (len(container.chunks[name]),), generator=generator, dtype=torch.uint8)
        chunks = {**container.chunks, name: data.numpy().tobytes()}
        (tmp_path / "a.s3d").write_bytes(container_bytes(replace(container, chunks=chunks)))
        with contextlib.suppress(FormatError):
            assert len(read_scene(tmp_path / "a.s3d").payload) == 60


def test_lossless_keeps_every_bit(tmp_path):
    gaussians = random_gaussians(257, 3)
    gaussians.means[0, 0] = torch.nan
    gaussians.opacity_logits[1] = torch.inf
    gaussians.sh0[2] = -0.0
    write_scene(Scene(gaussians, SceneInfo(source="x")), tmp_path / "a.s3d")
    read = read_scene(tmp_path / "a.s3d")
    assert read.info.source == "x"

    def rows(g):
        flat = torch.cat([value.reshape(len(g), -1) for value in g.params().values()], dim=1)
        return sorted(row.tobytes() for row in flat.numpy())

    assert rows(read.payload) == rows(gaussians)


def test_bytes_of_noise_are_written_as_they_are():
    # Enough rows for the third period to ask anew: noise, then steps, then noise that repeats itself.
    n = 70_000
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 2**32, n, dtype=np.uint32)
    steps = np.repeat(np.arange(n // 10, dtype=np.uint32), 10)
    both = np.where(np.arange(n) < 40_000, noise, steps)
    words = np.ascontiguousarray(np.stack([noise, steps, both], axis=1))
    coded = _cpu.encode_words(words.copy())
    read = np.zeros_like(words)
    _cpu.decode_words(coded, read)
    assert np.array_equal(read, words)
    # The columns of noise hold 110,000 words; a period that began with noise writes 2,554 more as they are.
    assert 4 * 110_000 < len(coded) < 4 * (110_000 + 2_554) * 1.02


@pytest.mark.parametrize("n", [0, 1, 2])
def test_lossless_takes_any_count(tmp_path, n):
    write_scene(Scene(random_gaussians(n)), tmp_path / "a.s3d")
    assert len(read_scene(tmp_path / "a.s3d").payload) == n


def test_an_absurd_count_is_refused_before_memory_is_taken(tmp_path):
    header = {"kind": "splats", "codec": "lossless-2", "n_items": 2**40, "info": {}, "meta": {"sh_degree": 3}}
    text = json.dumps(header).encode()
    head = b"\x89S3D\r\n\x1a\n" + struct.pack("<HHII", 1, 0, len(text), 0) + text
    (tmp_path / "a.s3d").write_bytes(head + struct.pack("<I", zlib.crc32(head)))
    with pytest.raises(FormatError, match="1099511627776 items"):
        read_scene(tmp_path / "a.s3d")
