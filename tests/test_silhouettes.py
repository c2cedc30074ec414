"""Outlines of meshes in pictures, and meshes moved until theirs are met."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.mesh import Mesh
from scene3d.meshing.depth_views import SurfaceViews
from scene3d.meshing.outlines import REACH, find_outlines, outward_directions, shifts_of
from scene3d.meshing.pulls import Pulls, solve
from scene3d.meshing.silhouettes import MAX_VIEWS, fit_silhouettes, picked_views
from scene3d.ops import triangles

pytestmark = pytest.mark.skipif(triangles._cpu is None, reason="the native module is not built")

SIDE, FOCAL, DISTANCE = 48, 48.0, 2.0
# A pixel at the plate.
PIXEL = DISTANCE / FOCAL


def camera() -> Cameras:
    viewmat = torch.eye(4)
    viewmat[2, 3] = DISTANCE
    K = torch.tensor([[FOCAL, 0, SIDE / 2], [0, FOCAL, SIDE / 2], [0, 0, 1.0]])
    return Cameras(viewmat[None], K[None], torch.tensor([[SIDE, SIDE]]))


def plate(half: float, n: int = 16) -> Mesh:
    """A square of n x n x 2 triangles at z = 0 that face the camera, sides 2 half pixels long."""
    x = torch.linspace(-half, half, n + 1) * PIXEL
    vertices = torch.stack([*torch.meshgrid(x, x, indexing="xy"), torch.zeros(n + 1, n + 1)], dim=-1).reshape(-1, 3)
    corner = (torch.arange(n)[:, None] * (n + 1) + torch.arange(n)).reshape(-1)
    a, b, c, d = corner, corner + 1, corner + n + 2, corner + n + 1
    return Mesh(vertices, torch.cat([torch.stack([a, c, b], dim=1), torch.stack([a, d, c], dim=1)]))


def square(half_x: float, half_y: float, color: tuple[float, float, float], behind: float = 0.0) -> Tensor:
    """A picture of a square over grey, pixels as much covered as their area. [H, W, 4] uint8"""
    edges = torch.arange(SIDE) - SIDE / 2
    inside = [((edges + 1).clamp_max(half) - edges.clamp_min(-half)).clamp(0, 1) for half in (half_y, half_x)]
    cover = inside[0][:, None, None] * inside[1][:, None]
    rgb = cover * torch.tensor(color) + behind * (1 - cover)
    return (torch.cat([rgb, cover], dim=-1) * 255).round().to(torch.uint8)


def views(picture: Tensor) -> SurfaceViews:
    return SurfaceViews(camera(), (), (picture[..., :3].contiguous(),), (picture[..., 3].contiguous(),))


def test_a_plate_grows_to_its_outline_in_the_picture():
    mesh = plate(10.0)
    moved = fit_silhouettes(mesh, views(square(11.3, 9.2, (0.9, 0.2, 0.1))))
    x, y, _ = (moved.vertices / PIXEL).unbind(dim=1)
    # Corners are rounded off by stiffness.
    assert float(x[y.abs() < 4].abs().amax()) == pytest.approx(11.3, abs=0.45)
    assert float(y[x.abs() < 4].abs().amax()) == pytest.approx(9.2, abs=0.45)
    # The picture says nothing of depth.
    assert float(moved.vertices[:, 2].abs().max()) < 1e-4
    assert moved.normals is not None
    assert torch.equal(moved.faces, mesh.faces)


def test_vertices_that_are_held_stay():
    mesh = plate(10.0)
    held = mesh.vertices[:, 0] > 0
    moved = fit_silhouettes(mesh, views(square(12.0, 12.0, (0.9, 0.2, 0.1))), held)
    assert torch.equal(moved.vertices[held], mesh.vertices[held])
    assert float(moved.vertices[~held].amin()) < float(mesh.vertices.amin()) - PIXEL


def shift_of(half: float, picture: Tensor, color: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Shift and weight along the middle row, at the right end of a plate of this half width before nothing."""
    nearness = torch.zeros(SIDE, SIDE)
    low, high = int(SIDE / 2 - half), int(SIDE / 2 + half)
    nearness[low:high, low:high] = 1 / DISTANCE
    shown = torch.cat([torch.tensor(color).expand(SIDE, SIDE, 3), torch.ones(SIDE, SIDE, 1)], dim=-1)
    shown = shown * (nearness > 0)[..., None]
    (outline,) = [o for o in find_outlines(nearness) if o.axis == 1 and o.step == 1]
    outline = outline.select(outline.rows == SIDE // 2)
    assert outline.columns.tolist() == [high - 1]
    found = shifts_of(outline, lambda rows, columns: shown[rows, columns], picture, nearness)
    return found.shift, found.weight


@pytest.mark.parametrize("shift", [-2.6, -1.0, 0.0, 0.3, 1.75, 3.0])
def test_shifts_are_found_to_a_fraction_of_a_pixel(shift: float):
    color = (0.1, 0.8, 0.3)
    found, weight = shift_of(12.0, square(12.0 + shift, 12.0, color), color)
    assert float(found) == pytest.approx(shift, abs=0.02)
    assert float(weight) > 0.9


def test_colours_that_are_alike_have_no_say():
    opaque = square(13.0, 13.0, (0.5, 0.5, 0.5), behind=0.5)
    opaque[..., 3] = 255
    found, weight = shift_of(12.0, opaque, (0.5, 0.5, 0.5))
    # The mesh ends there, the scene does not: nothing is known of an outline.
    assert float(weight) == 0.0
    assert abs(float(found)) <= REACH


def test_colours_of_neither_side_are_not_believed():
    other = square(14.0, 14.0, (0.1, 0.1, 0.9))
    assert float(shift_of(12.0, other, (0.9, 0.6, 0.1))[1]) < 0.1


def test_directions_point_from_near_to_far():
    nearness = torch.zeros(SIDE, SIDE)
    nearness[:, :20] = 0.5
    direction = outward_directions(nearness)[SIDE // 2, 19]
    torch.testing.assert_close(direction, torch.tensor([1.0, 0.0]))


def test_slopes_are_no_outlines():
    x = torch.arange(SIDE).float()
    steep = 1 / (1 + 0.2 * x)  # z grows by 15 % and less from pixel to pixel: 1 / z of a plane is linear
    plane = (1.0 - 0.015 * x).expand(SIDE, SIDE)
    assert sum(len(o.rows) for o in find_outlines(plane)) == 0
    assert sum(len(o.rows) for o in find_outlines(steep.expand(SIDE, SIDE))) > 0
    assert find_outlines(torch.ones(2, 2)) == []


def test_displacements_are_the_least_of_their_squares():
    mesh = plate(1.0, 2)
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(9, 3, generator=g), dim=1)
    x, y, z = directions.unbind(dim=1)
    A = torch.stack([x * x, x * y, x * z, y * y, y * z, z * z], dim=1)
    pulls = Pulls(A, 0.3 * directions)
    d = solve(mesh, pulls).double()
    pairs = {tuple(sorted((int(a), int(b)))) for f in mesh.faces for a, b in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0]))}
    length = {pair: float((mesh.vertices[pair[0]] - mesh.vertices[pair[1]]).norm()) for pair in pairs}
    mean = sum(length.values()) / len(length)
    # Short edges are stiffer.
    edges = {pair: max(1.0, mean / length[pair]) for pair in pairs}

    def energy(d: Tensor) -> Tensor:
        pulled = ((directions.double() * d).sum(dim=1) - 0.3).square().sum()
        stiff = sum((k * (d[a] - d[b]).square().sum() for (a, b), k in edges.items()), d.new_zeros(()))
        return pulled + stiff + 0.02 * d.square().sum()

    (slope,) = torch.autograd.grad(energy(d.requires_grad_()), d)
    assert float(slope.abs().max()) < 1e-4


def test_many_views_are_picked_evenly():
    assert picked_views(3) == [0, 1, 2]
    picked = picked_views(10 * MAX_VIEWS)
    assert len(picked) == MAX_VIEWS
    assert picked[1] == 10
