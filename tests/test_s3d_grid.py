"""The codec and the methods "grid": levels, pictures, round trips, goals met, damage refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_scenes import blob, views_around

from scene3d.compress import grid
from scene3d.compress.distill import Teacher
from scene3d.compress.goal import Goal
from scene3d.compress.judge import Judge
from scene3d.compress.neighbors import neighbor_loss, smooth
from scene3d.core.errors import FormatError
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.registry import read_scene
from scene3d.io.s3d_container import Container, write_container
from scene3d.io.s3d_grid import Levels, decode_grid, encode_grid, from_grid_rows, grid_rows, to_levels
from scene3d.ops.grid_sort import grid_width
from scene3d.render.types import RasterSettings

PATH = Path("a.s3d")


def levels_of(n: int, sh_degree: int, n_bits: int, has_log_means: bool = False) -> dict[str, Levels]:
    rows = grid_rows(blob(n, sh_degree), has_log_means)
    return {name: to_levels(value, n_bits) for name, value in rows.items()}


def container_of(n: int = 50, sh_degree: int = 1, n_bits: int = 10) -> Container:
    return encode_grid(levels_of(n, sh_degree, n_bits), grid_width(n), False, SceneInfo())


@pytest.mark.parametrize("image_codec", ["webp", "jxl"])
@pytest.mark.parametrize(("n", "sh_degree", "n_bits"), [(0, 0, 8), (1, 0, 3), (2, 1, 16), (50, 3, 5), (300, 1, 11)])
def test_levels_come_back_exactly(image_codec: str, n: int, sh_degree: int, n_bits: int) -> None:
    if image_codec == "jxl":
        pytest.importorskip("imagecodecs", reason="JPEG XL needs imagecodecs")
    levels = levels_of(n, sh_degree, n_bits, has_log_means=True)
    container = encode_grid(levels, grid_width(n), True, SceneInfo(), image_codec)
    back = decode_grid(container, PATH)
    expected = from_grid_rows({name: value.restored() for name, value in levels.items()}, True)
    for name, value in expected.params().items():
        assert bool((getattr(back, name) == value).all()), name


def test_levels_are_off_by_half_a_step_at_most() -> None:
    rows = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 100.0, 1e-3])
    for n_bits in (1, 5, 16):
        levels = to_levels(rows, n_bits)
        step = (levels.high - levels.low) / (2**n_bits - 1)
        assert bool(((levels.restored() - rows).abs() <= 0.501 * step).all())


def test_clipping_moves_only_the_extremes() -> None:
    rows = torch.linspace(0, 1, 1000)[:, None]
    clipped = to_levels(rows, 8, clip=0.01)
    assert float(clipped.low) == pytest.approx(0.01, abs=2e-3)
    assert float(clipped.high) == pytest.approx(0.99, abs=2e-3)


def test_channels_of_one_value_are_exact() -> None:
    assert bool((to_levels(torch.full((9, 2), 0.3), 4).restored() == torch.full((9, 2), 0.3)).all())


def forged(**facts: object) -> Container:
    container = container_of()
    attributes = {**container.meta["attributes"]}
    attributes["quats"] = {**attributes["quats"], **facts}
    return replace(container, meta={**container.meta, "attributes": attributes})


@pytest.mark.parametrize(
    ("container", "message"),
    [
        (replace(container_of(), meta={}), "width: expected 1 to 16383, got None"),
        (replace(container_of(), meta={**container_of().meta, "images": "bmp"}), "images: expected one of webp, jxl"),
        (forged(bits=17), "quats: expected 1 to 16 bits as rgb or gray, got 17"),
        (forged(layout="cmyk"), "quats: expected 1 to 16 bits"),
        (forged(low=[0, 1]), "quats: expected bounds of 3 channels"),
        (forged(low=[0, 1, "x"]), "quats: expected bounds of 3 channels"),
        (replace(container_of(), meta={**container_of().meta, "width": 9}), "expected 9x"),
        (replace(container_of(), chunks={}), "the chunk 'means' is missing"),
    ],
)
def test_forged_numbers_are_named(container: Container, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode_grid(container, PATH)


def test_damaged_pictures_are_format_errors() -> None:
    container = container_of()
    for name, data in container.chunks.items():
        for broken in (b"", data[:20], data[: len(data) // 2], bytes(len(data))):
            with pytest.raises(FormatError, match=name):
                decode_grid(replace(container, chunks={**container.chunks, name: broken}), PATH)


def test_damaged_jpeg_xl_is_a_format_error() -> None:
    pytest.importorskip("imagecodecs", reason="JPEG XL needs imagecodecs")
    container = encode_grid(levels_of(50, 1, 10), grid_width(50), False, SceneInfo(), "jxl")
    small = encode_grid(levels_of(2, 1, 10), grid_width(2), False, SceneInfo(), "jxl")
    for broken in (b"", b"x" * 50, container.chunks["means"][:40], small.chunks["means"]):
        with pytest.raises(FormatError, match="means: expected a whole JPEG XL image"):
            decode_grid(replace(container, chunks={**container.chunks, "means": broken}), PATH)


def test_sorted_pictures_are_smaller_than_shuffled_ones() -> None:
    scene = blob(1500, 0)
    sizes = []
    for order in (grid.sort_order(scene, False), torch.arange(1500)):
        rows = grid_rows(scene.select(order), False)
        sizes.append(sum(grid.picture_bytes(to_levels(value, 6).values, 39) for value in rows.values()))
    assert sizes[0] < 0.9 * sizes[1]


def test_the_goal_is_met_and_the_file_gives_what_was_judged(tmp_path: Path) -> None:
    scene, views = Scene(blob(400), SceneInfo(antialiased=True)), views_around(6)
    judge = Judge(scene, views)
    packed = grid.compress(scene, Goal(scene_psnr=20.0), judge, views)
    assert packed.is_met
    write_container(packed.container, tmp_path / "a.s3d")
    assert (tmp_path / "a.s3d").stat().st_size == packed.size_bytes == sum(loss.size_bytes for loss in packed.losses)
    back = read_scene(tmp_path / "a.s3d")
    assert back.info.antialiased
    assert judge.verdict(back.splats()) == packed.verdict


@pytest.mark.parametrize("n", [0, 1, 3])
def test_scenes_of_hardly_anything_are_compressed(n: int) -> None:
    scene, views = Scene(blob(n)), views_around(2)
    packed = grid.compress(scene, Goal(), Judge(scene, views), views)
    assert len(decode_grid(packed.container, PATH)) == len(packed.gaussians) <= n


def test_a_flat_picture_has_no_neighbour_loss() -> None:
    assert float(neighbor_loss(torch.full((20, 3), 2.5), 5)) < 1e-10


def test_the_neighbour_loss_pulls_towards_the_neighbours() -> None:
    values = torch.zeros(25, 1)
    values[12] = 1.0
    values.requires_grad_()
    neighbor_loss(values, 5).backward()
    assert values.grad is not None
    assert float(values.grad[12]) > 0
    assert float(values.grad[11]) < 0


def test_tuning_makes_neighbours_alike() -> None:
    scene, views = blob(100), views_around(4)
    tuned = smooth(scene, 10, Teacher(scene, views, RasterSettings()), n_steps=10)
    before, after = (float(neighbor_loss(g.log_scales, 10)) for g in (scene, tuned))
    assert after < before
