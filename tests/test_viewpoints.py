"""Views made up for scenes without cameras."""

from __future__ import annotations

from dataclasses import replace

import torch
from small_scenes import blob
from torch.nn.functional import normalize

from scene3d.core.gaussians import Gaussians
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings
from scene3d.render.viewpoints import synthesize_surface_views, synthesize_views


def wall(n: int, seed: int = 0) -> Gaussians:
    """Opaque discs of many colours in the square of 2 units around the origin, facing z."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.cat([2 * torch.rand(n, 2, generator=generator) - 1, torch.zeros(n, 1)], dim=1)
    quats = torch.tensor([1.0, 0, 0, 0]).repeat(n, 1)
    log_scales = torch.tensor([0.04, 0.04, 0.002]).log().repeat(n, 1)
    sh0 = 3 * (torch.rand(n, 1, 3, generator=generator) - 0.5)
    return Gaussians(means, quats, log_scales, torch.full((n,), 6.0), sh0, torch.zeros(n, 0, 3))


def together(*parts: Gaussians) -> Gaussians:
    return Gaussians(*(torch.cat(values) for values in zip(*(p.params().values() for p in parts), strict=True)))


def test_made_up_views_see_opaque_splats():
    gaussians = blob(300)
    views = synthesize_views(gaussians, 4, RasterSettings())
    middle = slice(views.width() * 7 // 16, views.width() * 9 // 16)
    alphas = [rasterize(gaussians, views.select([i])).alpha[0, middle, middle].mean() for i in range(4)]
    assert min(alphas) > 0.4


def test_far_surroundings_do_not_take_the_views():
    near, far = blob(900), blob(100, seed=1)
    far = replace(far, means=400 * normalize(far.means, dim=1), log_scales=far.log_scales + 7)
    scene = together(near, far)
    eyes = synthesize_views(scene, 12, RasterSettings()).centers()
    assert int((eyes.norm(dim=1) < 20).sum()) >= 8


def test_surfaces_are_looked_at_from_where_light_stops_at_once():
    front = wall(3000)
    generator = torch.Generator().manual_seed(2)
    spread, shift = torch.tensor([2.0, 2.0, 6.0]), torch.tensor([-1.0, -1.0, -6.3])
    haze = replace(
        wall(6000, seed=1),
        means=spread * torch.rand(6000, 3, generator=generator) + shift,
        log_scales=torch.full((6000, 3), 0.05).log(),
        opacity_logits=torch.full((6000,), -3.0),
    )
    eyes = synthesize_surface_views(together(front, haze), 10, RasterSettings()).centers()
    assert len(eyes) >= 5
    assert float((eyes[:, 2] > 0).float().mean()) > 0.8


def test_small_parts_of_a_scene_get_their_surface_views():
    aside = torch.tensor([9.0, 0.0, 0.0])
    small = wall(3000).select(torch.arange(300))
    small = replace(small, means=0.4 * small.means + aside)
    views = synthesize_surface_views(together(wall(6000), small), 10, RasterSettings())
    in_cam = views.viewmats[:, :3, :3] @ aside + views.viewmats[:, :3, 3]
    assert int(((in_cam[:, :2].norm(dim=1) < 0.3 * in_cam[:, 2]) & (in_cam[:, 2] > 0)).sum()) >= 2


def test_transparent_scenes_have_no_surface_views():
    faint = replace(wall(200), opacity_logits=torch.full((200,), -7.0))
    assert len(synthesize_surface_views(faint, 4, RasterSettings())) == 0
