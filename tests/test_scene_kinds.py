"""Every kind of scene through the same functions: render, points, density, facts; and clear words where it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from field_scenes import random_field
from tiny_capture import tiny_cameras, tiny_capture, tiny_scene

from scene3d.core.errors import BackendUnavailable, SceneKindError
from scene3d.core.scene import Scene
from scene3d.io.ply import write_ply
from scene3d.render.density import density_at
from scene3d.render.frames import FrameSettings, frames
from scene3d.render.scene_points import scene_points
from scene3d.render.scene_view import backend_of, render_scene
from scene3d.render.types import RasterSettings
from scene3d.report.evaluate import evaluate
from scene3d.report.field_facts import field_facts, field_text


def scene_of(kind: str) -> Scene:
    return (
        tiny_scene() if kind == "gaussians" else Scene(random_field(kind, has_occupancy=True).to(dtype=torch.float32))
    )


@pytest.mark.parametrize("kind", ["gaussians", "vm", "cp", "trivec", "rbf", "hash", "mlp"])
def test_every_kind_renders_evaluates_and_has_points(kind: str):
    scene, cameras = scene_of(kind), tiny_cameras()
    render = render_scene(scene, cameras, RasterSettings(with_depth=True, with_normals=True))
    assert render.rgb.shape == (4, 24, 32, 3)
    assert render.alpha.max() > 0.3
    assert render.depth is not None
    seen = render.alpha > 0.1
    assert 1 < render.depth[seen].min() < render.depth[seen].max() < 7
    score = evaluate(scene, tiny_capture(tiny_scene()), [0, 1])
    assert score.mean.psnr > 5
    assert score.scene_size == scene.size_text()
    assert len(scene_points(scene).positions) > 20
    for mode in ("rgb", "depth", "normals", "alpha"):
        assert next(frames(scene, cameras, FrameSettings(mode=mode))).max() > 50


@pytest.mark.parametrize("kind", ["vm", "cp", "trivec", "rbf", "hash", "mlp"])
def test_the_torch_oracle_renders_the_same_image(kind: str):
    scene, camera = scene_of(kind), tiny_cameras().select([1])
    settings = RasterSettings(background=(1.0, 0.5, 0.0), with_depth=True)
    native, oracle = (render_scene(scene, camera, settings, name) for name in ("cpu", "reference"))
    # Rays within rounding of a cell's border may differ by one sample.
    assert ((native.rgb - oracle.rgb).abs() < 1e-4).float().mean() > 0.99
    assert (native.rgb - oracle.rgb).abs().max() < 0.05


def test_density_is_zero_outside_and_in_empty_cells():
    field = random_field("vm", has_occupancy=True)
    points = torch.tensor([[5.0, 0.0, 0.0], [0.1, 0.1, -1.0]], dtype=torch.float64)
    assert density_at(field, points).tolist() == [0, 0]
    assert density_at(replace(field, occupancy=None), points)[1] > 0


def test_what_a_kind_cannot_do_is_said(tmp_path: Path):
    scene = scene_of("vm")
    with pytest.raises(SceneKindError, match="takes Gaussian splats, the scene holds a vm field of 9x7x12 nodes"):
        write_ply(scene, tmp_path / "a.ply")
    with pytest.raises(SceneKindError, match="takes a radiance field, the scene holds 30 Gaussians"):
        tiny_scene().field()
    with pytest.raises(BackendUnavailable, match="renders Gaussians only"):
        backend_of(scene, "gsplat")


def test_facts_of_a_field_say_what_it_is():
    scene = scene_of("vm")
    text = field_text(field_facts(scene, 1_234_567))
    for words in ("1.2 MB", "vm, 9x7x12 nodes", "16 for density, 32 for colour", "x -1 to 0.9", "% of the box"):
        assert words in text
    of_leaves = field_text(field_facts(scene_of("trivec"), 1))
    assert "leaves      41 of 4x4x4 nodes\nleaves" in of_leaves
    broken = scene.field().map(lambda value: value * torch.nan)
    assert "not finite" in field_text(field_facts(Scene(broken), 1))


def test_wrong_numbers_of_a_field_are_refused():
    field = random_field("vm")
    with pytest.raises(ValueError, match=r"density xz: expected shape \[z, x, R\], got \[12, 9, 8\]"):
        replace(field, density=(field.density[0], field.density[1][..., :8], *field.density[2:]))
    with pytest.raises(ValueError, match="expected a least corner below the greatest"):
        replace(field, box=field.box.flip(0))
    leaves = random_field("trivec")
    with pytest.raises(ValueError, match="levels: expected none of a field of the kind vm, got 2"):
        replace(field, levels=leaves.levels)
    with pytest.raises(ValueError, match="levels: expected 1 to 2, got 0"):
        replace(leaves, levels=())
    with pytest.raises(ValueError, match=r"density x0: expected shape \[\d+, 4, R\]"):
        replace(leaves, levels=(replace(leaves.levels[0], taken=~leaves.levels[0].taken), leaves.levels[1]))
    with pytest.raises(ValueError, match="basis: expected 96 rows"):
        replace(field, decoder=replace(field.decoder, basis=field.decoder.basis[:16]))
