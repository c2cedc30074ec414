"""Photo depth: a painted wall that a scene has a little off comes right; edges are left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from painted_wall import HEIGHT, WIDTH, cameras_along, wall_depth, wall_photo
from tiny_capture import tiny_scene

from scene3d.core.capture import Photo
from scene3d.core.mesh import Mesh
from scene3d.core.scene import Scene
from scene3d.meshing import photo_depth
from scene3d.meshing.depth_guess import mesh_guess, own_guess
from scene3d.meshing.depth_views import SurfaceViews, ViewSettings, depth_image
from scene3d.meshing.photo_depth import OWN_WEIGHT, better_depths, moved_along, nearest_places
from scene3d.meshing.scene_mesh import MeshSettings, mesh_scene
from scene3d.ops.depth_edges import is_thin, without_specks
from scene3d.ops.plane_match import depth_of

XS = (-0.9, -0.4, 0.0, 0.4, 0.9)
OFF = 1.01


def off_views() -> SurfaceViews:
    """The wall one percent too far away."""
    cameras = cameras_along(XS)
    views = [cameras.select([i]) for i in range(len(XS))]
    depths = tuple(depth_image(OFF * wall_depth(v), torch.ones(HEIGHT, WIDTH), v, ViewSettings()) for v in views)
    return SurfaceViews(cameras, depths, ())


def photos() -> list[Photo]:
    cameras = cameras_along(XS)
    return [Photo(wall_photo(cameras.select([i]))) for i in range(len(XS))]


def test_photos_bring_the_wall_where_it_is():
    views = off_views()
    better = better_depths(views, photos(), own_guess(views))
    for i in range(len(XS)):
        truth, own = wall_depth(views.cameras.select([i])), views.depths[i]
        moved = better[i].depth != own.depth
        assert float(moved[8:-8, 12:-12].float().mean()) > 0.7  # the rest is seen by few
        assert float((better[i].depth / truth - 1)[moved].abs().median()) < (OFF - 1) / 6  # a pixel is 1.1e-2 wide
        assert float((better[i].weight[moved] / own.weight[moved].clamp_min(1e-6)).median()) > 0.9


def test_without_texture_the_depth_of_the_scene_stays_with_less_weight():
    views = off_views()
    flat = [Photo(torch.full_like(photo.rgb, 90)) for photo in photos()]
    for own, better in zip(views.depths, better_depths(views, flat, own_guess(views)), strict=True):
        kept = better.depth == own.depth
        assert float(kept.float().mean()) > 0.95
        inner = kept & own.is_known()
        assert float((better.weight / own.weight.clamp_min(1e-6))[inner].median()) == pytest.approx(OWN_WEIGHT)


def test_what_masks_hide_says_nothing():
    views, pictures = off_views(), photos()
    left = torch.full((HEIGHT, WIDTH), 255, dtype=torch.uint8)
    left[:, : WIDTH // 2] = 0
    pictures[2] = replace(pictures[2], mask=left)
    own, better = views.depths[2], better_depths(views, pictures, own_guess(views))[2]
    share = better.weight / own.weight.clamp_min(1e-6)
    assert float(share[8:-8, 12 : WIDTH // 2].max()) == pytest.approx(OWN_WEIGHT)
    assert float((share[8:-8, WIDTH // 2 : -12] > 0.8).float().mean()) > 0.7


def test_photos_that_are_masked_all_over_are_compared_with_none():
    views, pictures = off_views(), photos()
    nothing = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    pictures[1:] = [replace(photo, mask=nothing) for photo in pictures[1:]]
    better = better_depths(views, pictures, own_guess(views))
    assert all(torch.equal(a.depth, b.depth) for a, b in zip(better, views.depths, strict=True))


def test_depth_moves_as_sure_depth_around_does():
    depth = torch.full((20, 30), 2.0)
    depth[0, 0] = torch.nan
    sure = torch.zeros(20, 30)
    sure[:, :10], sure[:, 20:], sure[3, 15] = 1.98, 2.02, 1.0
    moved = moved_along(depth, sure)
    torch.testing.assert_close(moved[2:, :8], torch.full((18, 8), 1.98), rtol=0, atol=2e-3)
    torch.testing.assert_close(moved[:, 22:], torch.full((20, 8), 2.02), rtol=0, atol=2e-3)
    between = moved[10, 8:22]
    assert bool((between.diff() > -1e-6).all())  # from one to the other; what is far too near moves nothing
    assert torch.equal(moved_along(depth, torch.zeros(20, 30))[1:], depth[1:])


def test_places_that_others_see_are_found_in_a_view():
    cameras = cameras_along(XS)
    depths = [wall_depth(cameras.select([i])) for i in range(len(XS))]
    front = nearest_places(depths, cameras, 2, [1, 3])
    seen = front > 0
    assert float(seen.float().mean()) > 0.6
    assert float((front / depths[2] - 1)[seen].abs().max()) < 0.01
    assert not nearest_places(depths, cameras, 2, []).any()


def test_depth_behind_what_others_confirm_does_not_count():
    views, pictures = off_views(), photos()
    mirrored = replace(views.depths[2], depth=1.05 * views.depths[2].depth)
    views = replace(views, depths=(*views.depths[:2], mirrored, *views.depths[3:]))
    pictures[2] = Photo(torch.full_like(pictures[2].rgb, 90))
    better = better_depths(views, pictures, own_guess(views))[2]
    assert float((better.weight == 0)[8:-8, 12:-12].float().mean()) > 0.5


def wall_mesh(off: float) -> Mesh:
    """The wall, farther away by so much, without its left side."""
    x, y = torch.meshgrid(torch.linspace(-0.6, 4, 61), torch.linspace(-3, 3, 3), indexing="ij")
    vertices = torch.stack([x, y, 0.4 * x + off], dim=-1).reshape(-1, 3)
    at = torch.arange(61 * 3).reshape(61, 3)
    corner, right, below = at[:-1, :-1].reshape(-1), at[1:, :-1].reshape(-1), at[:-1, 1:].reshape(-1)
    return Mesh(
        vertices, torch.cat([torch.stack([corner, right, below], 1), torch.stack([right, right + 1, below], 1)])
    )


def test_a_mesh_is_what_the_second_comparison_begins_with():
    views = off_views()
    guess = mesh_guess(wall_mesh(0.02), own_guess(views), views.cameras)
    for i, planes in enumerate(guess.planes):
        own = own_guess(views).planes[i]
        is_own = (planes == own).all(dim=0)
        assert 0.02 < float(is_own.float().mean()) < 0.9  # left of the mesh
        x, _, z = views.cameras.centers()[i].tolist()
        expected = (1 + 0.02 / (0.4 * x - z)) * wall_depth(views.cameras.select([i]))
        torch.testing.assert_close(depth_of(planes)[~is_own], expected[~is_own], rtol=0, atol=1e-3)
        assert i not in guess.partners[i]
        assert guess.partners[i]
        assert set(guess.partners[i]) <= set(guess.asked[i])
    better = better_depths(views, photos(), guess)
    truths = [wall_depth(views.cameras.select([i])) for i in range(len(XS))]
    gaps = [float((b.depth / t - 1)[16:-16, 24:-24].abs().median()) for b, t in zip(better, truths, strict=True)]
    assert max(gaps) < 0.5 * 0.02 / 3  # the mesh is three units away


def test_bars_are_thin_and_steps_are_not():
    depth = torch.full((40, 60), 3.0)
    depth[:, 30:] = 2.0
    depth[:, 10:14] = 1.5
    depth[0, 0] = 0.0
    expected = torch.zeros(40, 60, dtype=torch.bool)
    expected[:, 10:14] = True
    assert torch.equal(is_thin(depth), expected)


def test_specks_of_depth_go_and_steps_stay():
    depth = torch.full((12, 16), 2.0)
    depth[:, 8:] = 3.0
    speckled = depth.clone()
    speckled[4, 3], speckled[6, 12], speckled[9, 4] = 1.0, 9.0, 0.0
    torch.testing.assert_close(without_specks(speckled), depth)


def test_photos_of_another_size_are_refused():
    small = [Photo(photo.rgb[:-1]) for photo in photos()]
    with pytest.raises(ValueError, match="photos: expected 96x64 pixels as of view 0, got 96x63"):
        better_depths(off_views(), small, own_guess(off_views()))


def test_depth_by_photos_needs_photos():
    settings = replace(MeshSettings(), photo_depth=True)
    with pytest.raises(ValueError, match="photo_depth: expected photos, got none"):
        mesh_scene(Scene(tiny_scene().splats()), cameras_along(XS), settings)


def test_what_is_thin_in_both_depths_or_lost_by_the_guess_is_left_to_the_scene():
    flat, line = torch.full((40, 60), 4.0), torch.full((40, 60), 4.0)
    line[:, 30] = 3.0
    everywhere, nowhere = torch.ones(40, 60, dtype=torch.bool), torch.zeros(40, 60, dtype=torch.bool)
    assert photo_depth._mixed(line, everywhere, line)[20].nonzero()[:, 0].tolist() == [29, 30, 31]
    assert photo_depth._mixed(line, nowhere, flat)[20].nonzero()[:, 0].tolist() == [30]
    # A mirror image, behind what the guess has there.
    assert not bool(photo_depth._mixed(line, everywhere, flat - 1.5).any())
    assert not bool(photo_depth._mixed(line, everywhere, torch.zeros(40, 60)).any())
