"""Adaptive shells: the band holds all matter, and what is seen through it is what the whole box shows."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from field_scenes import random_field
from small_scenes import views_around
from strategies import one_gaussian

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.errors import FormatError, SceneKindError
from scene3d.core.fields import Field
from scene3d.core.scene import Scene
from scene3d.core.shell import Shell
from scene3d.io.ply import write_ply
from scene3d.io.registry import write_scene
from scene3d.io.shell_files import INNER, read_shell, why_other_shell, write_shell
from scene3d.meshing import shell as shell_module
from scene3d.meshing.shell import extract_shell
from scene3d.ops.occupancy import cell_centers
from scene3d.ops.triangles import signed_distance
from scene3d.render import field_cpu
from scene3d.render.density import density_at
from scene3d.render.field import render_field
from scene3d.render.field_bricks import bake
from scene3d.render.shell_gain import measure_shell
from scene3d.render.types import RasterSettings
from scene3d.stages import render, shell

if not field_cpu.is_available():
    pytest.skip("the native module is not built", allow_module_level=True)

pytest.importorskip("scipy")
pytest.importorskip("trimesh")


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    monkeypatch.setattr(shell_module, "N_RAYS", 1 << 15)
    monkeypatch.setattr(shell_module, "RAYS_AT_ONCE", 1 << 15)
    monkeypatch.setattr(shell_module, "CELLS", 40)


@functools.cache
def ball() -> Field:
    """A solid ball of radius 0.5 in fog that is not there."""
    field = random_field(nodes=(20, 20, 20), step=0.005).to(dtype=torch.float32)
    box = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    shape = (24, 24, 24)
    inside = cell_centers(shape, box).norm(dim=-1) < 0.5
    return replace(field, box=box, occupancy=inside, density_shift=1.0, density_scale=60.0)


@functools.cache
def ball_shell() -> Shell:
    return extract_shell(Scene(ball()))


def test_all_matter_lies_inside_of_the_outer_mesh():
    points = 2 * torch.rand(3000, 3, generator=torch.Generator().manual_seed(0)) - 1
    dense = points[density_at(ball(), points) > 1]
    assert len(dense) > 100
    assert float(signed_distance(ball_shell().outer, dense).max()) <= 0.02
    assert float(signed_distance(ball_shell().outer, ball_shell().inner.vertices).max()) < 0


@pytest.mark.parametrize("has_bricks", [False, True])
def test_a_shell_shows_what_the_box_shows_with_fewer_samples(has_bricks: bool):
    field = replace(ball(), occupancy=None, density_shift=-4.0)
    shell = ball_shell()
    dense = bake(ball()) if has_bricks else ball()
    gain = measure_shell(dense, shell, views_around(3, 48), rounds=1)
    assert gain.fidelity > 40
    # Bricks leave out what is thin already, and look at sixteen samples at once.
    assert gain.within.samples < (1.05 if has_bricks else 1.0) * gain.without.samples
    # Fog that fills the box is cut off in front of the shell.
    whole = measure_shell(field, shell, views_around(3, 48), rounds=1)
    assert whole.within.samples < 0.7 * whole.without.samples


def test_depth_and_alpha_go_through_the_shell_and_normals_are_refused():
    camera, within = views_around(1, 48), replace(ball(), shell=ball_shell())
    truth, seen = (render_field(field, camera, RasterSettings(with_depth=True)) for field in (ball(), within))
    assert truth.depth is not None
    assert seen.depth is not None
    solid = truth.alpha > 0.99
    assert float((truth.alpha - seen.alpha).abs().mean()) < 1e-3
    assert float((truth.depth - seen.depth)[solid].abs().max()) < 0.02
    with pytest.raises(ValueError, match="rendered through it, by the backend cpu; got normals"):
        render_field(within, camera, RasterSettings(with_normals=True))
    with pytest.raises(ValueError, match="got the backend reference"):
        render_field(within, camera, backend="reference")


@pytest.mark.parametrize("eye", [(0.0, 0.0, -0.55), (0.0, 0.1, 0.0)])
def test_a_camera_inside_of_the_shell_sees_what_is_before_it(eye):
    viewmat = look_at(torch.tensor(eye), torch.tensor([0.0, 0.0, 5.0]), torch.tensor([0.0, 1.0, 0.0]))
    K = torch.tensor([[30.0, 0.0, 16.0], [0.0, 30.0, 16.0], [0.0, 0.0, 1.0]])
    camera = Cameras(viewmat[None], K[None], torch.tensor([[32, 32]]), ("inside",))
    truth, seen = (render_field(field, camera) for field in (ball(), replace(ball(), shell=ball_shell())))
    assert float(truth.alpha.min()) > 0.99
    assert float((truth.rgb - seen.rgb).abs().max()) < 0.02


def test_splats_have_a_shell_by_their_opacity():
    places = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    places = 0.5 * places / places.norm(dim=1, keepdim=True)
    one = one_gaussian((0.0, 0.0, 0.0), (0.06, 0.06, 0.06), 0.9)
    shell = extract_shell(Scene(replace(one.select(torch.zeros(500, dtype=torch.long)), means=places)))
    assert float(signed_distance(shell.outer, places).max()) < 0
    assert float(shell.outer.vertices.norm(dim=1).max()) < 0.9
    assert shell.inner.n_faces > 100


def test_what_has_no_shell_is_refused():
    with pytest.raises(ValueError, match="expected matter to put a shell around, found none in a vm field"):
        extract_shell(Scene(replace(ball(), density_shift=-40.0)))
    with pytest.raises(ValueError, match="field without bounds"):
        extract_shell(Scene(random_field(warp="cube").to(dtype=torch.float32)))
    with pytest.raises(ValueError, match="min_light: expected more than 0 and less than 1, got 0"):
        extract_shell(Scene(ball()), 0.0)


def test_a_shell_comes_back_from_its_folder(tmp_path: Path):
    scene = tmp_path / "ball.s3d"
    scene.write_bytes(b"one")
    write_shell(ball_shell(), tmp_path / "shell", scene, 4.0)
    back = read_shell(tmp_path / "shell")
    assert torch.equal(back.outer.corners(), ball_shell().outer.corners())
    assert back.inner.n_faces == ball_shell().inner.n_faces
    assert why_other_shell(tmp_path / "shell", scene, 4.0) is None
    scene.write_bytes(b"two")
    assert why_other_shell(tmp_path / "shell", scene, 4.0) == "input scene changed"
    (tmp_path / "shell" / INNER).unlink()
    assert read_shell(tmp_path / "shell").inner.n_faces == 0
    with pytest.raises(FormatError, match=r"expected a folder with outer.ply. Make one with scene3d shell"):
        read_shell(tmp_path)


def test_the_commands_say_what_a_shell_saves_and_take_fields_only(tmp_path: Path, capsys):
    scene = tmp_path / "ball.s3d"
    write_scene(Scene(ball()), scene)
    shell.run(shell.Config(scene, tmp_path / "band", width=32))
    assert "triangles outside" in (out := capsys.readouterr().out)
    assert "samples a ray instead of" in out
    order = render.Config(
        scene, tmp_path / "a.png", path="orbit", only=0, width=32, height=32, shell=tmp_path / "other"
    )
    render.run(order)
    assert "shell: " in capsys.readouterr().out
    assert (tmp_path / "other" / "outer.ply").exists()
    with pytest.raises(ValueError, match="expected --mode rgb, depth or alpha"):
        render.run(replace(order, mode="normals"))
    splats = tmp_path / "splats.ply"
    write_ply(Scene(one_gaussian((0.0, 0.0, 4.0), (0.3, 0.3, 0.3), 0.99)), splats)
    with pytest.raises(SceneKindError, match="drawn, not sampled along rays"):
        render.run(replace(order, scene=splats))


def test_a_shell_of_another_scene_is_refused_unless_asked_for(tmp_path: Path, capsys):
    scene, field = tmp_path / "ball.s3d", replace(ball(), box=0.5 * ball().box)
    write_scene(Scene(field), scene)
    write_shell(ball_shell(), tmp_path / "band", scene, 1 / 64)
    order = render.Config(scene, tmp_path / "a.png", path="orbit", only=0, width=32, height=32, shell=tmp_path / "band")
    with pytest.raises(ValueError, match=r"looks like the whole to \d+\.\d dB only .*--any-shell"):
        render.run(order)
    assert not (tmp_path / "a.png").exists()
    render.run(replace(order, any_shell=True))
    assert (tmp_path / "a.png").exists()
