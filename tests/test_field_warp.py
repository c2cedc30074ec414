"""Fields without bounds: points and rays of their frames, native code against torch, and what stages make of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from field_scenes import random_field, random_rays, turned_warp

from scene3d.compress.field_pack import pack_field
from scene3d.compress.goal import Goal
from scene3d.core.cameras import Cameras, look_at
from scene3d.core.capture import Capture, Photo
from scene3d.core.errors import BackendUnavailable, CaptureError, FormatError
from scene3d.core.scene import Scene
from scene3d.core.warp import Warp
from scene3d.io.field_codec import decode_field, encode_field
from scene3d.io.registry import read_scene, write_scene
from scene3d.meshing.opacity_field import cell_size
from scene3d.ops.warp import frame_points, near_frame, ray_pieces, weights_of, world_points
from scene3d.recon.field_fit import FieldHooks, fit_field
from scene3d.recon.field_settings import FieldFitSettings, without_bounds
from scene3d.recon.field_space import find_space
from scene3d.render import field_cpu, field_reference
from scene3d.render.density import density_at
from scene3d.render.field import render_field
from scene3d.render.field_march import SMOOTH, MarchSettings

KINDS = ("cube", "frustum")

if not field_cpu.is_available():
    pytest.skip("the native module is not built", allow_module_level=True)


def points_in_reach(warp: Warp, n: int = 400) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(n, 3, generator=generator, dtype=torch.float64) * torch.logspace(-1, 1.3, n)[:, None]
    return points[weights_of(warp, near_frame(warp, points)) >= 1]


@pytest.mark.parametrize("kind", KINDS)
def test_points_come_back_from_the_frame(kind):
    warp = turned_warp(kind)
    points = points_in_reach(warp)
    framed = frame_points(warp, points)
    assert framed.abs().amax() <= (2 if kind == "cube" else 60)
    torch.testing.assert_close(world_points(warp, framed), points)


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_rays_pass_the_points_that_their_distances_say(kind):
    warp = turned_warp(kind)
    origins, directions, _ = random_rays(200)
    pieces = ray_pieces(warp, origins, directions, 0.1, 1e10)
    n_checked = 0
    for k in range(pieces.lengths.shape[1]):
        for part in (0.05, 0.4, 0.9):
            s = part * pieces.lengths[:, k, None]
            t = pieces.distances_on(k, s)
            at = pieces.origins[:, k] + s * pieces.directions[:, k]
            checked = (pieces.lengths[:, k] > 1e-9) & (t[:, 0] < 50)
            want = frame_points(warp, origins + t * directions)
            torch.testing.assert_close(at[checked], want[checked])
            n_checked += int(checked.sum())
    assert n_checked > 400


def test_pieces_of_a_cube_cover_the_whole_ray():
    pieces = ray_pieces(turned_warp("cube"), *random_rays(100)[:2], 0.0, 1e10)
    there = pieces.lengths > 1e-9
    begins, ends = pieces.t_over_w / pieces.inverse_w.clamp_min(1e-12), pieces.inverse_w
    assert there.sum(dim=1).min() >= 2
    for ray in range(100):
        t = begins[ray][there[ray]]
        torch.testing.assert_close(t[1:, 0], t[:-1, 1])
        assert t[0, 0] == 0
        assert ends[ray][there[ray]][-1, 1] == 0


@pytest.mark.parametrize("warp", KINDS)
@pytest.mark.parametrize("kind", ["vm", "trivec", "rbf"])
@pytest.mark.parametrize("has_occupancy", [False, True])
def test_native_march_gives_what_torch_gives(warp, kind, has_occupancy):
    field = random_field(kind, has_occupancy=has_occupancy, warp=warp)
    origins, directions, jitter = random_rays(150)
    settings = MarchSettings(near=0.2)
    want = field_reference.march(field, origins, directions, jitter, settings)
    got = field_cpu.march(field, origins, directions, jitter, settings)
    for name in ("features", "opacity", "distance"):
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-7, atol=1e-9)
    assert want.opacity.max() > 0.5


@pytest.mark.parametrize("warp", KINDS)
def test_gradients_of_factors_pass_gradcheck(warp):
    field = random_field("vm", nodes=(3, 4, 2), ranks=(16, 16), step=0.45, warp=warp)
    origins, directions, jitter = random_rays(3)

    def sums(*factors):
        result = field_cpu.march(field.with_factors(factors), origins, directions, jitter, SMOOTH)
        return result.features, result.opacity, result.distance

    assert torch.autograd.gradcheck(sums, [v.requires_grad_() for v in field.factors()], fast_mode=True)


def test_a_warp_that_shears_is_refused():
    matrix = torch.eye(3, 4)
    matrix[0, 1] = 0.5
    with pytest.raises(ValueError, match="frame_from_world: expected a turn times one scale"):
        Warp("cube", matrix)


SIDE, FOCAL = 32, 30.0
BALL, ROOM = 0.5, 40.0


def directions_of(camera: Cameras) -> torch.Tensor:
    row, column = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    rays = torch.stack([(column - SIDE / 2) / FOCAL, (row - SIDE / 2) / FOCAL, torch.ones(SIDE, SIDE)], dim=2)
    return torch.nn.functional.normalize(rays @ camera.viewmats[0, :3, :3], dim=2)


def room_photo(camera: Cameras) -> Photo:
    """A red ball in a room so far away that its colours depend on the direction alone."""
    directions, center = directions_of(camera), camera.centers()[0]
    along = directions @ center
    hit = (along < 0) & (along**2 - (center @ center - BALL**2) > 0)
    rgb = torch.where(hit[..., None], torch.tensor([0.8, 0.2, 0.2]), 0.5 + 0.3 * torch.sin(3 * directions))
    return Photo((rgb * 255).round().to(torch.uint8))


def room_capture(looks_one_way: bool = False, n: int = 16) -> Capture:
    eyes, targets = [], []
    for i in range(n):
        angle = 2 * math.pi * i / n
        ring = torch.tensor([math.cos(angle), math.sin(angle), 0.4 * math.sin(3 * angle)])
        eyes.append(torch.tensor([0.3 * ring[0], -2.5, 0.3 * ring[1]]) if looks_one_way else 2 * ring)
        targets.append(eyes[-1] + torch.tensor([0.0, 1.0, 0.0]) if looks_one_way else torch.zeros(3))
    up = torch.tensor([0.0, 0.0, 1.0])
    viewmats = torch.stack([look_at(eye, target, up) for eye, target in zip(eyes, targets, strict=True)])
    K = torch.tensor([[FOCAL, 0, SIDE / 2], [0, FOCAL, SIDE / 2], [0, 0, 1]])
    cameras = Cameras(viewmats, K.repeat(n, 1, 1), torch.tensor([[SIDE, SIDE]]).repeat(n, 1))
    photos = [room_photo(cameras.select([i])) for i in range(n)]
    points = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    points = BALL * torch.nn.functional.normalize(points, dim=1)
    test = (0, 5, 10)
    return Capture(
        cameras,
        photos.__getitem__,
        train=tuple(i for i in range(n) if i not in test),
        test=test,
        source=Path("room"),
        points=points,
        point_colors=torch.full((400, 3), 128, dtype=torch.uint8),
    )


ROOM_SETTINGS = without_bounds(
    FieldFitSettings(
        max_steps=120,
        color_rank=16,
        n_features=16,
        hidden=32,
        first_voxels=20**3,
        last_voxels=22**3,
        mask_after=20,
        lr_decoder=5e-3,
    )
)
ROOM_SETTINGS = replace(ROOM_SETTINGS, first_voxels=20**3, batch_rays=512)


def test_cameras_around_something_get_contracted_space():
    space = find_space(room_capture(), "auto", None, None, 0)
    assert space.warp is not None
    assert space.warp.kind == "cube"
    assert 1 / space.warp.scale < BALL
    assert "contracted" in space.reason
    assert find_space(room_capture(), "auto", (-1, -1, -1, 1, 1, 1), None, 0).warp is None


def test_cameras_that_look_one_way_get_device_coordinates():
    capture = room_capture(looks_one_way=True)
    space = find_space(capture, "auto", None, None, 0)
    assert space.warp is not None
    assert space.warp.kind == "frustum"
    framed = frame_points(space.warp, capture.points)
    assert ((framed >= space.box[0]) & (framed <= space.box[1])).all(dim=1).float().mean() > 0.95
    for view in range(len(capture)):
        directions = directions_of(capture.cameras.select([view])).reshape(-1, 3)
        ends = capture.cameras.centers()[view] + 1000 * directions
        framed = frame_points(space.warp, ends)
        assert ((framed >= space.box[0]) & (framed <= space.box[1])).all()


def test_ndc_is_refused_where_cameras_look_at_each_other():
    with pytest.raises(CaptureError, match="do not all look one way"):
        find_space(room_capture(), "ndc", None, None, 0)


@pytest.mark.parametrize("looks_one_way", [False, True])
def test_a_fit_without_bounds_shows_the_room_behind_the_ball(looks_one_way: bool):
    capture = room_capture(looks_one_way, n=16 if looks_one_way else 48)
    result = fit_field(capture, ROOM_SETTINGS)
    assert result.field.warp is not None
    assert result.validation is not None
    # In a box around the points it is 9 dB: the room is black.
    assert result.validation.psnr > 17


def test_a_resumed_fit_gives_the_same_bytes(tmp_path: Path):
    short = replace(ROOM_SETTINGS, max_steps=30)
    whole = fit_field(room_capture(), short)
    steps = iter(range(100))
    path = tmp_path / "checkpoint.pt"
    fit_field(room_capture(), short, FieldHooks(should_stop=lambda: next(steps) == 15, checkpoint=path))
    resumed = fit_field(room_capture(), short, FieldHooks(checkpoint=path))
    for a, b in zip(whole.field.factors(), resumed.field.factors(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("warp", KINDS)
def test_a_file_brings_the_warp_back(warp: str, tmp_path: Path):
    field = random_field("vm", has_occupancy=True, warp=warp).to(dtype=torch.float32)
    write_scene(Scene(field), tmp_path / "a.s3d")
    back = read_scene(tmp_path / "a.s3d").field().warp
    assert back is not None
    assert back.kind == warp
    assert torch.equal(back.frame_from_world, field.warp.frame_from_world)


def test_compression_keeps_the_warp():
    field = random_field("vm", has_occupancy=True, warp="cube").to(dtype=torch.float32)
    cameras = room_capture().cameras.select([1, 2])
    packed = pack_field(Scene(field), Goal(target_bytes=60_000), cameras, has_codes=False)
    back = decode_field(encode_field(Scene(field)), Path())
    assert back.warp is not None
    assert packed.container.meta["warp"]["kind"] == "cube"


@pytest.mark.parametrize(
    "table", [[1], {"kind": "globe"}, *({"kind": "cube", "frame_from_world": [1] * n} for n in (11, 12))]
)
def test_damaged_warps_are_refused(table: object):
    container = encode_field(Scene(random_field("vm", warp="cube").to(dtype=torch.float32)))
    with pytest.raises(FormatError, match=r"warp: (expected|frame_from_world)"):
        decode_field(replace(container, meta={**container.meta, "warp": table}), Path("x.s3d"))


@pytest.mark.parametrize("warp", KINDS)
def test_images_of_both_backends_agree(warp: str):
    field = random_field("vm", has_occupancy=True, warp=warp)
    camera = room_capture().cameras.select([1]).to(dtype=torch.float64)
    got, want = (render_field(field, camera, backend=backend) for backend in ("cpu", "reference"))
    torch.testing.assert_close(got.rgb, want.rgb, rtol=1e-6, atol=1e-8)
    assert want.alpha.max() > 0.1


def test_the_cuda_backend_is_refused_for_warped_fields():
    with pytest.raises(BackendUnavailable):
        render_field(random_field("vm", warp="cube"), room_capture().cameras.select([1]), backend="cuda")


def test_density_falls_with_the_stretch_of_space():
    field = random_field("vm", warp="cube")
    flat = field.with_factors(tuple(torch.zeros_like(v) for v in field.factors()))
    outward = torch.linalg.inv(field.warp.frame_from_world[:, :3])
    middle = -outward @ field.warp.frame_from_world[:, 3]
    points = torch.stack([middle + outward @ torch.tensor([w, 0.0, 0.0], dtype=torch.float64) for w in (0.5, 2.0, 4.0)])
    density = density_at(flat, points)
    torch.testing.assert_close(density / density[0], torch.tensor([1.0, 1 / 4, 1 / 16], dtype=torch.float64))


def test_meshes_take_the_cells_of_the_near_region_for_size():
    field = random_field("vm", warp="cube")
    plain = replace(field, warp=None)
    assert cell_size(field) == pytest.approx(cell_size(plain) / 1.25)
