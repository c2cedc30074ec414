"""Photo votes: a mesh of a painted wall that is a little off is moved to where the photos show it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from painted_wall import HEIGHT, NORMAL, WIDTH, cameras_along, wall_depth, wall_photo

from scene3d import _cpu
from scene3d.core.capture import Photo
from scene3d.core.mesh import Mesh
from scene3d.meshing.photo_depth import grey_photos
from scene3d.meshing.photo_votes import N_ROUNDS, follow_photos
from scene3d.ops.depth_edges import nearness_of
from scene3d.ops.plane_match import GreyPhotos, planes_of
from scene3d.ops.threads import set_threads

XS = (-0.9, -0.4, 0.0, 0.4, 0.9)
CAMERAS = cameras_along(XS)
# At three units from the camera.
PIXEL = 3 / 90
INNER = (slice(8, -8), slice(12, -12))


def photos() -> list[Photo]:
    return [Photo(wall_photo(CAMERAS.select([i]))) for i in range(len(XS))]


def wall_mesh(off: float) -> Mesh:
    """The wall, nearer along its normal by so many pixels, triangles of a pixel or two, seen from its front."""
    n = 121
    x, y = torch.meshgrid(torch.linspace(-3, 3, n), torch.linspace(-2, 2, n), indexing="ij")
    vertices = torch.stack([x, y, 0.4 * x], dim=-1).reshape(-1, 3) + off * PIXEL * NORMAL
    at = torch.arange(n * n).reshape(n, n)
    corners = (at[:-1, :-1], at[:-1, 1:], at[1:, :-1], at[1:, 1:])
    corner, right, below, across = (part.reshape(-1) for part in corners)
    return Mesh(vertices, torch.cat([torch.stack([corner, below, across], 1), torch.stack([corner, across, right], 1)]))


def off_wall(mesh: Mesh) -> torch.Tensor:
    """Pixels towards the cameras, of the vertices that all of them see."""
    inner = (mesh.vertices[:, 0].abs() < 0.6) & (mesh.vertices[:, 1].abs() < 0.5)
    return (mesh.vertices[inner] @ NORMAL) / PIXEL


def ask(off: float, grey: GreyPhotos, partners: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Offsets in the third view of a wall that is nearer along its normal by so many pixels."""
    shift = off * PIXEL / (0.4 * NORMAL[0] - NORMAL[2])  # along z, of the plane z = 0.4 x
    depths = []
    for i in range(len(XS)):
        camera = CAMERAS.select([i])
        eye = camera.centers()[0]
        depths.append(wall_depth(camera) * (1 - shift * (1 + 0.4**2) / (0.4 * eye[0] - eye[2])))
    planes = planes_of(depths[2], NORMAL.expand(HEIGHT, WIDTH, 3), CAMERAS.select([2]))
    return grey.offsets(2, partners, planes, [nearness_of(depth) for depth in depths], 9, 0.5)


@pytest.mark.parametrize("off", [-1.3, -0.4, 0.0, 0.7])
def test_offsets_say_how_far_a_surface_is_off(off: float):
    offsets, trust = ask(off, grey_photos(photos(), CAMERAS), [0, 1, 3, 4])
    known = trust[INNER] > 0.01
    assert float(known.float().mean()) > 0.7
    found = offsets * wall_depth(CAMERAS.select([2])) / 3
    assert float((found[INNER][known] + off).abs().median()) < 0.08


def test_offsets_are_the_same_for_all_threads_and_nearly_so_for_all_processors():
    grey, before = grey_photos(photos(), CAMERAS), _cpu.simd_level()
    expected, trust = ask(0.6, grey, [0, 1, 3, 4])
    set_threads(3)
    again = ask(0.6, grey, [0, 1, 3, 4])
    set_threads(None)
    assert torch.equal(expected, again[0])
    assert torch.equal(trust, again[1])
    for level in _cpu.simd_levels():
        _cpu.set_simd_level(level)
        offsets, its = ask(0.6, grey, [0, 1, 3, 4])
        _cpu.set_simd_level(before)
        same = (offsets - expected).abs() < 1e-3  # of two offsets that are equally good either may be taken
        assert float(same.float().mean()) > 0.99
        assert float((its - trust)[same].abs().max()) < 1e-2


def test_one_photo_alone_has_no_say():
    grey = grey_photos(photos(), CAMERAS)
    assert not ask(0.5, grey, [1])[1].any()
    assert not ask(0.5, grey, [])[1].any()
    hidden = [
        photo if i < 3 else replace(photo, mask=torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8))
        for i, photo in enumerate(photos())
    ]
    assert not ask(0.5, grey_photos(hidden, CAMERAS), [1, 3, 4])[1].any()
    assert ask(0.5, grey_photos(hidden, CAMERAS), [0, 1])[1].any()


def test_what_the_surface_hides_from_a_photo_is_not_compared():
    grey = grey_photos(photos(), CAMERAS)
    planes = planes_of(wall_depth(CAMERAS.select([2])), NORMAL.expand(HEIGHT, WIDTH, 3), CAMERAS.select([2]))
    before = [nearness_of(0.9 * wall_depth(CAMERAS.select([i]))) for i in range(len(XS))]
    assert not grey.offsets(2, [0, 1, 3, 4], planes, before, 9, 0.5)[1].any()


def test_offsets_of_other_numbers_and_sizes_are_refused():
    grey, planes = grey_photos(photos(), CAMERAS), torch.zeros(3, HEIGHT, WIDTH)
    near = [torch.zeros(HEIGHT, WIDTH)] * len(XS)
    for n_offsets in (1, 4, 11):
        with pytest.raises(ValueError, match="expected 3, 5, 7 or 9"):
            grey.offsets(2, [1, 3], planes, near, n_offsets, 0.5)
    with pytest.raises(ValueError, match="expected the size of its photo"):
        grey.offsets(2, [1, 3], planes, [image[:-1] for image in near], 9, 0.5)
    with pytest.raises(ValueError, match="expected the size of the photo"):
        _cpu.vote_offsets(grey._native[2], [], [], 9, 0.5, planes, torch.zeros(HEIGHT, 9), torch.zeros(HEIGHT, WIDTH))


@pytest.mark.parametrize("off", [-1.2, 0.8])
def test_a_mesh_is_moved_to_where_photos_show_it(off: float):
    calls = []
    moved = follow_photos(wall_mesh(off), photos(), CAMERAS, lambda: calls.append(0))
    assert float(off_wall(wall_mesh(off)).median()) == pytest.approx(off, abs=1e-3)
    assert float(off_wall(moved).abs().median()) < 0.1
    assert torch.equal(moved.faces, wall_mesh(off).faces)
    assert len(calls) == (N_ROUNDS + 1) * len(XS)


def test_a_mesh_seen_from_behind_moves_the_right_way():
    mesh = wall_mesh(0.8)
    inside_out = replace(mesh, faces=mesh.faces.flip(1))
    assert float(off_wall(follow_photos(inside_out, photos(), CAMERAS)).abs().median()) < 0.1


def test_without_texture_a_mesh_stays():
    flat = [Photo(torch.full_like(photo.rgb, 90)) for photo in photos()]
    mesh = wall_mesh(0.8)
    torch.testing.assert_close(follow_photos(mesh, flat, CAMERAS).vertices, mesh.vertices)
