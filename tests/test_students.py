"""Conversions: splats, fields and meshes become each other without photos."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from field_scenes import random_field

from scene3d.core.cameras import Cameras
from scene3d.core.errors import FormatError
from scene3d.core.gaussians import Gaussians
from scene3d.core.mesh import Mesh
from scene3d.core.scene import Scene
from scene3d.io.mesh_files import write_mesh
from scene3d.io.registry import read_scene, write_scene
from scene3d.ops import sh
from scene3d.ops.occupancy import is_occupied
from scene3d.recon import imitate, students
from scene3d.recon import teacher as teacher_module
from scene3d.recon.field_settings import FieldFitSettings
from scene3d.recon.imitate import imitate_density, occupied_cells
from scene3d.recon.students import STEPS, StudentKind, StudentSettings, convert_scene, first_splats, render_capture
from scene3d.recon.surface_colors import with_view_colors
from scene3d.recon.teacher import teacher_of_mesh, teacher_of_scene
from scene3d.render import field_cpu
from scene3d.render.density import density_at
from scene3d.render.free_views import views_among, views_around
from scene3d.render.splat_matter import splat_matter
from scene3d.render.surround import from_points
from scene3d.stages import convert
from scene3d.stages.convert_kind import usual_steps

if not field_cpu.is_available():
    pytest.skip("the native module is not built", allow_module_level=True)

N_VIEWS, SIDE = 24, 48


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    """Small scenes need less than the constants say."""
    monkeypatch.setattr(imitate, "N_STEPS", 40)
    monkeypatch.setattr(imitate, "N_POINTS", 1024)
    monkeypatch.setattr(imitate, "N_RAYS", 1024)
    monkeypatch.setattr(teacher_module, "SURFACE_POINTS", 20_000)
    monkeypatch.setattr(imitate, "CELLS", 48)
    monkeypatch.setattr(teacher_module, "MATTER_CELLS", 48)
    monkeypatch.setattr(students, "N_COLOR_STEPS", 30)


@functools.cache
def ball_mesh() -> Mesh:
    """A ball of radius 0.6, coloured by place."""
    n = 24
    row, column = torch.meshgrid(torch.arange(n + 1), torch.arange(2 * n), indexing="ij")
    polar, around = row * math.pi / n, column * math.pi / n
    directions = torch.stack([polar.sin() * around.cos(), polar.sin() * around.sin(), polar.cos()], dim=2)
    corner = row[:-1] * 2 * n + column[:-1]
    right = row[:-1] * 2 * n + (column[:-1] + 1) % (2 * n)
    faces = torch.cat(
        [torch.stack([corner, corner + 2 * n, right], 2), torch.stack([right, corner + 2 * n, right + 2 * n], 2)]
    )
    vertices = 0.6 * directions.reshape(-1, 3)
    colors = (255 * (0.5 + 0.4 * directions.reshape(-1, 3))).round().to(torch.uint8)
    return Mesh(vertices.float(), faces.reshape(-1, 3), colors=colors)


@functools.cache
def ball_splats() -> Gaussians:
    """The same ball of round splats."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.nn.functional.normalize(torch.randn(1500, 3, generator=generator), dim=1)
    return Gaussians(
        means=0.6 * directions,
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(1500, 1),
        log_scales=torch.full((1500, 3), math.log(0.03)),
        opacity_logits=torch.full((1500,), 3.0),
        sh0=sh.from_rgb(0.5 + 0.4 * directions)[:, None],
        shN=torch.zeros(1500, 0, 3),
    )


def cameras_of(teacher, n=N_VIEWS):
    return views_around(from_points(teacher.points), n, SIDE)


def converted(teacher, kind, **more):
    cameras = cameras_of(teacher, N_VIEWS + 3)
    settings = replace(
        StudentSettings(kind, 40 if kind == "splats" else 100, n_splats=1500, last_voxels=24**3, ranks=(16, 16)), **more
    )
    return convert_scene(teacher, cameras.select(range(N_VIEWS)), cameras.select(range(N_VIEWS, N_VIEWS + 3)), settings)


@pytest.mark.parametrize("kind", ["vm", "splats"])
def test_a_mesh_becomes_another_kind(kind):
    made = converted(teacher_of_mesh(ball_mesh()), kind, n_splats=6000)
    assert made.scene.kind == ("gaussians" if kind == "splats" else kind)
    assert made.fidelity_db > 16


def test_a_network_learns_of_a_mesh():
    teacher = teacher_of_mesh(ball_mesh())
    first, later = (converted(teacher, "hash", steps=steps) for steps in (4, 40))
    assert later.scene.kind == "hash"
    assert later.fidelity_db > first.fidelity_db + 1


def test_splats_become_a_field_and_back():
    field = converted(teacher_of_scene(Scene(ball_splats())), "vm")
    assert field.fidelity_db > 17
    splats = converted(teacher_of_scene(field.scene), "splats")
    assert splats.fidelity_db > 17


def test_the_same_seed_gives_the_same_student():
    teacher = teacher_of_scene(Scene(ball_splats()))
    one, two = (converted(teacher, "vm", steps=10).scene.field() for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.factors(), two.factors(), strict=True))


def test_the_first_block_takes_over_density(monkeypatch):
    monkeypatch.setattr(imitate, "N_STEPS", 80)
    monkeypatch.setattr(imitate, "N_POINTS", 4096)
    field = replace(random_field(nodes=(20, 20, 20)).to(dtype=torch.float32), density_shift=-4.0)
    teacher = teacher_of_scene(Scene(field))
    settings = FieldFitSettings(first_voxels=20**3, last_voxels=20**3, color_rank=16, n_features=16, hidden=16)
    start = students.first_state(settings, teacher.box, occupied_cells(teacher)).field
    student = imitate_density(start, teacher, torch.Generator().manual_seed(0))
    points = field.box[0] + (field.box[1] - field.box[0]) * torch.rand(
        4000, 3, generator=torch.Generator().manual_seed(1)
    )
    points = points[is_occupied(start.occupancy, start.box, points)]
    truth, before, after = (density_at(value, points) for value in (field, start, student))
    assert (after - truth).square().mean() < 0.6 * (before - truth).square().mean()


def test_matter_of_a_splat_is_its_optical_depth_times_its_area():
    splats = ball_splats().select(torch.arange(1))
    flat = replace(splats, means=torch.zeros(1, 3), log_scales=torch.tensor([[0.1, 0.2, 0.01]]).log())
    box = torch.tensor([[-1.5, -1.5, -1.5], [1.5, 1.5, 1.5]])
    grid = splat_matter(flat, box, (30, 30, 30))
    depth = -math.log(1 - float(flat.opacities[0]))
    assert float(grid.density.sum()) * 0.1**3 == pytest.approx(depth * 2 * math.pi * 0.1 * 0.2, rel=1e-4)
    assert float(grid.at(torch.tensor([[9.0, 0, 0]]))) == 0


def test_first_splats_lie_on_the_surface_and_face_outwards():
    teacher = teacher_of_mesh(ball_mesh())
    cameras = cameras_of(teacher)
    surfaces = render_capture(teacher, cameras, cameras.select([0])).surfaces
    assert (surfaces.points.norm(dim=1) - 0.6).abs().median() < 0.02
    known = surfaces.normals.norm(dim=1) > 0.5
    outwards = torch.nn.functional.normalize(surfaces.points[known], dim=1)
    assert (surfaces.normals[known] * outwards).sum(dim=1).median() > 0.95
    splats = first_splats(surfaces, 500, 0)
    assert (splats.scales[:, 2] < splats.scales[:, 0]).float().mean() > 0.7


def test_free_views_see_the_middle():
    around = from_points(teacher_of_mesh(ball_mesh()).points)
    cameras = views_around(around, 20, SIDE)
    in_camera = cameras.viewmats[:, :3, :3] @ around.focus.float() + cameras.viewmats[:, :3, 3]
    assert (in_camera[:, 2] > 0).all()
    assert (in_camera[:, :2].norm(dim=1) < 0.6 * in_camera[:, 2]).all()
    among = views_among(cameras, 30, 24)
    assert len(among) == 30
    assert int(among.sizes.max()) == 24
    assert float(among.centers().norm(dim=1).max()) < 1.2 * float(cameras.centers().norm(dim=1).max())


def test_convert_writes_a_small_field_of_a_mesh(tmp_path: Path, capsys):
    write_mesh(ball_mesh(), tmp_path / "ball.ply")
    options = convert.KindOptions(steps=10, views=6, view_size=32, voxels=12, target_mb=0.05)
    out = tmp_path / "ball.s3d"
    convert.run(convert.Config(tmp_path / "ball.ply", out, to="vm", learn=options))
    assert read_scene(out).kind == "vm"
    assert out.stat().st_size <= 50_000
    assert "against renders of the teacher" in capsys.readouterr().out


def test_convert_says_what_cannot_be(tmp_path: Path):
    write_scene(Scene(ball_splats()), tmp_path / "a.ply")
    write_mesh(ball_mesh(), tmp_path / "m.ply")
    (tmp_path / "no.ply").write_bytes(b"ply\nnothing")
    with pytest.raises(ValueError, match="holds splats already"):
        convert.run(convert.Config(tmp_path / "a.ply", tmp_path / "b.ply", to="splats"))
    with pytest.raises(Exception, match=r"held by \.s3d only"):
        convert.run(convert.Config(tmp_path / "a.ply", tmp_path / "b.ply", to="vm"))
    with pytest.raises(ValueError, match="edits are for scenes"):
        convert.run(convert.Config(tmp_path / "m.ply", tmp_path / "b.s3d", do=("scale 2",), to="vm"))
    with pytest.raises(FormatError):
        convert.run(convert.Config(tmp_path / "no.ply", tmp_path / "b.s3d", to="vm"))
    options = convert.KindOptions(views=0)
    with pytest.raises(ValueError, match="views: expected 1 to 2000, got 0"):
        convert.run(convert.Config(tmp_path / "m.ply", tmp_path / "b.s3d", to="vm", learn=options))


def test_a_field_without_bounds_teaches_one_of_its_kind():
    teacher = teacher_of_scene(Scene(random_field("vm", nodes=(24, 24, 24), warp="cube").to(dtype=torch.float32)))
    assert teacher.warp is not None
    cameras = views_around(from_points(teacher.points), 4, 24, 0)
    settings = StudentSettings("vm", 10, last_voxels=24**3, ranks=(16, 16))
    made = convert_scene(teacher, cameras.select(range(3)), cameras.select([3]), settings)
    student = made.scene.field()
    assert student.warp is not None
    assert torch.equal(student.warp.frame_from_world, teacher.warp.frame_from_world)
    assert torch.isfinite(torch.tensor(made.fidelity_db))


def test_density_of_a_teacher_in_its_frame_is_that_of_the_field():
    field = random_field("vm", warp="cube").to(dtype=torch.float32)
    teacher = teacher_of_scene(Scene(field))
    points = 1.8 * (2 * torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 1)
    # Corners of the frame, far along two axes at once, are no place of the world.
    points = points[(points.abs() > 1).sum(dim=1) <= 1]
    feature = field_cpu.NativeField(field).density_features(points)
    want = field.density_scale * torch.nn.functional.softplus(feature + field.density_shift)
    torch.testing.assert_close(teacher.density_in_frame(points), want, rtol=1e-3, atol=1e-4)


def test_view_colors_are_found_where_places_are_known():
    teacher = teacher_of_mesh(ball_mesh())
    cameras = cameras_of(teacher)
    renders = render_capture(teacher, cameras, cameras.select([0]))
    splats = first_splats(renders.surfaces, 400, 0)
    found = with_view_colors(splats, renders.capture)
    # The ball looks the same from everywhere.
    truth = 0.5 + 0.4 * torch.nn.functional.normalize(splats.means, dim=1)
    for direction in torch.eye(3):
        colors = sh.evaluate(found.sh0, found.shN, direction.expand(400, 3), 3)
        assert float((colors - truth).abs().mean()) < 0.05
    assert found.sh_degree == 3


def test_points_that_no_view_shows_keep_their_color():
    teacher = teacher_of_mesh(ball_mesh())
    cameras = cameras_of(teacher)
    renders = render_capture(teacher, cameras, cameras.select([0]))
    splats = first_splats(renders.surfaces, 50, 0)
    inside = replace(splats, means=0.1 * splats.means)
    torch.testing.assert_close(with_view_colors(inside, renders.capture).sh0, splats.sh0)


def test_nodes_of_a_student_are_a_pixel_apart():
    teacher = teacher_of_mesh(ball_mesh())
    cameras = cameras_of(teacher)
    pixel = render_capture(teacher, cameras, cameras.select([0])).pixel
    size = teacher.box[1] - teacher.box[0]
    # Of a ball around 0, at the median: from there to its middle.
    distance = float(cameras.centers().norm(dim=1).median()) - 0.6
    assert distance < pixel * float(cameras.Ks[0, 0, 0]) < distance + 0.6
    n_nodes = students._voxels(teacher, float(size[0]) / 100)
    assert n_nodes == pytest.approx(1e6, rel=1e-3)
    assert students._voxels(teacher, 1.0) == students.MIN_VOXELS
    assert students._voxels(teacher, 1e-6) == students.MAX_VOXELS


def test_rays_far_from_matter_are_left_out():
    teacher = teacher_of_mesh(ball_mesh())
    cameras = cameras_of(teacher)
    capture = render_capture(teacher, cameras, cameras.select([0])).capture
    near = students._near_matter(capture)
    for view in capture.train:
        photo = near.load(view)
        assert photo.alpha is not None
        assert photo.mask is not None
        assert bool((photo.mask[photo.alpha > 0] == 255).all())
    assert any(bool((near.load(view).mask == 0).any()) for view in capture.train)
    assert near.load(capture.test[0]).mask is None


def test_many_views_teach_harmonics_and_few_a_network():
    teacher = teacher_of_mesh(ball_mesh())
    cameras = cameras_of(teacher, 75)
    settings = StudentSettings("vm", 40, last_voxels=24**3, ranks=(16, 16))
    for n in (72, 24):
        made = convert_scene(teacher, cameras.select(range(n)), cameras.select(range(72, 75)), settings)
        assert made.scene.field().decoder.is_harmonic == (n == 72)
        assert made.fidelity_db > 16


@pytest.mark.parametrize("kind", ["trivec", "rbf"])
def test_other_kinds_learn_harmonics_too(kind):
    teacher = teacher_of_mesh(ball_mesh())
    cameras = cameras_of(teacher, 63)
    settings = StudentSettings(kind, 30, last_voxels=24**3, ranks=(16, 16))
    made = convert_scene(teacher, cameras.select(range(60)), cameras.select(range(60, 63)), settings)
    assert made.scene.kind == kind
    assert made.scene.field().decoder.is_harmonic
    assert made.fidelity_db > 10


def test_fields_of_larger_renders_take_more_steps() -> None:
    def steps(kind: StudentKind, side: int) -> int:
        return usual_steps(kind, Cameras(torch.eye(4)[None], torch.eye(3)[None], torch.tensor([[side, side // 2]])))

    assert steps("vm", 100) == steps("vm", 200) == STEPS["vm"]
    assert 2 * STEPS["vm"] < steps("vm", 400) < 3 * STEPS["vm"]
    assert steps("vm", 4000) == 6 * STEPS["vm"]
    assert steps("hash", 400) == STEPS["hash"]
    assert steps("splats", 400) == STEPS["splats"]
