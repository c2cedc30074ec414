"""gsplat's torch code, where it is installed, as a second opinion on the maths that both share. Needs no GPU."""

from __future__ import annotations

import pytest
import torch
from strategies import random_gaussians, ring_of_cameras

from scene3d.ops import covariance, projection, sh

torch_impl = pytest.importorskip("gsplat.cuda._torch_impl", reason="gsplat is not installed", exc_type=ImportError)


def test_covariances_are_those_of_gsplat() -> None:
    scene = random_gaussians(30)
    expected, _ = torch_impl._quat_scale_to_covar_preci(scene.quats, scene.scales)
    torch.testing.assert_close(covariance.from_quats_scales(scene.quats, scene.scales), expected)


def test_projections_are_those_of_gsplat() -> None:
    scene, views = random_gaussians(50, spread=1.5), ring_of_cameras(2)
    covars = covariance.from_quats_scales(scene.quats, scene.scales)
    _, means2d, depths, conics, compensations = torch_impl._fully_fused_projection(
        scene.means, covars, views.viewmats, views.Ks, 37, 23, eps2d=0.3, calc_compensations=True
    )
    for c in range(2):
        found = projection.project(scene.means, covars, views.viewmats[c], views.Ks[c], (37, 23), 0.3)
        front = found.depths > 0.01
        torch.testing.assert_close(found.means2d[front], means2d[c][front])
        torch.testing.assert_close(found.depths[front], depths[c][front])
        torch.testing.assert_close(found.conics[front], conics[c][front])
        torch.testing.assert_close(found.compensations[front], compensations[c][front])


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colours_are_those_of_gsplat(degree: int) -> None:
    scene = random_gaussians(30)
    dirs = torch.nn.functional.normalize(scene.means, dim=1)
    coefficients = torch.cat([scene.sh0, scene.shN], dim=1)
    expected = (torch_impl._spherical_harmonics(degree, dirs, coefficients) + 0.5).clamp_min(0)
    torch.testing.assert_close(sh.evaluate(scene.sh0, scene.shN, dirs, degree), expected)
