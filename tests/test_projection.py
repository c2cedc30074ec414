"""EWA projection against automatic differentiation of the pinhole camera, and its clamp."""

from __future__ import annotations

import math

import pytest
import torch
from strategies import F64, random_gaussians, ring_of_cameras
from torch import Tensor

from scene3d.ops import covariance, projection


def pinhole(point: Tensor, viewmat: Tensor, K: Tensor) -> Tensor:  # [3] -> [2]
    projected = K @ (viewmat[:3, :3] @ point + viewmat[:3, 3])
    return projected[:2] / projected[2]


def scene(spread: float) -> tuple[Tensor, Tensor]:
    gaussians = random_gaussians(20, spread=spread)
    return gaussians.means, covariance.from_quats_scales(gaussians.quats, gaussians.scales)


def as_matrices(triples: Tensor) -> Tensor:
    return triples[:, [0, 1, 1, 2]].view(-1, 2, 2)


def test_means_are_those_of_the_pinhole_camera() -> None:
    means, covars = scene(0.5)
    views = ring_of_cameras(1)
    found = projection.project(means, covars, views.viewmats[0], views.Ks[0], (37, 23))
    expected = torch.stack([pinhole(m, views.viewmats[0], views.Ks[0]) for m in means])
    torch.testing.assert_close(found.means2d, expected)
    torch.testing.assert_close(found.depths, means @ views.viewmats[0, 2, :3] + views.viewmats[0, 2, 3])


def test_covariances_are_those_of_the_linearised_camera() -> None:
    means, covars = scene(0.2)
    views = ring_of_cameras(1)
    found = projection.project(means, covars, views.viewmats[0], views.Ks[0], (37, 23), eps2d=0.3)
    for i in range(len(means)):
        jacobian = torch.func.jacrev(pinhole)(means[i], views.viewmats[0], views.Ks[0])
        expected = jacobian @ covars[i] @ jacobian.T + 0.3 * torch.eye(2, dtype=F64)
        torch.testing.assert_close(as_matrices(found.covars2d)[i], expected)


def test_conics_invert_the_covariances() -> None:
    means, covars = scene(0.5)
    views = ring_of_cameras(1)
    found = projection.project(means, covars, views.viewmats[0], views.Ks[0], (37, 23))
    products = as_matrices(found.conics) @ as_matrices(found.covars2d)
    torch.testing.assert_close(products, torch.eye(2, dtype=F64).expand_as(products))


@pytest.mark.parametrize("eps2d", [0.0, 0.3, 5.0])
def test_compensation_is_the_root_of_the_ratio_of_areas(eps2d: float) -> None:
    means, covars = scene(0.5)
    views = ring_of_cameras(1)
    sharp = projection.project(means, covars, views.viewmats[0], views.Ks[0], (37, 23), eps2d=0.0)
    found = projection.project(means, covars, views.viewmats[0], views.Ks[0], (37, 23), eps2d=eps2d)
    areas = [torch.linalg.det(as_matrices(p.covars2d)).sqrt() for p in (sharp, found)]
    torch.testing.assert_close(found.compensations, areas[0] / areas[1])


@pytest.mark.parametrize(("side", "axis"), [(-1, 0), (1, 0), (-1, 1), (1, 1)])
def test_the_jacobian_is_clamped_beside_the_image(side: int, axis: int) -> None:
    width, height, focal, center = 40, 30, 20.0, (14.0, 18.0)
    K = torch.tensor([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]], dtype=F64)
    extent = (width, height)[axis]
    edge = (extent - center[axis]) / focal if side > 0 else -center[axis] / focal
    limit = edge + side * 0.3 * 0.5 * extent / focal
    mean = torch.zeros(1, 3, dtype=F64)
    mean[0, axis], mean[0, 2] = side * 50.0, 2.0
    found = projection.project(mean, torch.eye(3, dtype=F64)[None], torch.eye(4, dtype=F64), K, (width, height), 0.0)
    # A unit covariance: variance = (f / z)^2 (1 + slope^2), the slope held at its limit.
    variance = found.covars2d[0, 2 * axis].item()
    assert variance == pytest.approx((focal / 2.0) ** 2 * (1 + limit**2))
    assert found.means2d[0, axis].item() == pytest.approx(focal * side * 25.0 + center[axis])


def test_the_clamp_passes_no_gradient_sideways() -> None:
    K = torch.tensor([[20.0, 0, 20], [0, 20.0, 15], [0, 0, 1]], dtype=F64)
    mean = torch.tensor([[50.0, 0.0, 2.0]], dtype=F64, requires_grad=True)
    covar = torch.eye(3, dtype=F64)[None]
    projection.project(mean, covar, torch.eye(4, dtype=F64), K, (40, 30)).covars2d.sum().backward()
    assert mean.grad is not None
    assert mean.grad[0, 0] == 0
    assert mean.grad[0, 2] != 0


def test_flat_gaussians_seen_edge_on_have_safe_gradients() -> None:
    scales = torch.tensor([[0.0, 1.0, 1.0]], dtype=F64, requires_grad=True)
    covar = covariance.from_quats_scales(torch.tensor([[1.0, 0, 0, 0]], dtype=F64), scales)
    K = torch.tensor([[20.0, 0, 20], [0, 20.0, 15], [0, 0, 1]], dtype=F64)
    found = projection.project(torch.tensor([[0.0, 0, 3]], dtype=F64), covar, torch.eye(4, dtype=F64), K, (40, 30))
    assert found.compensations.item() == 0
    found.compensations.sum().backward()
    assert scales.grad is not None
    assert scales.grad.isfinite().all()


def test_gradients_pass_gradcheck() -> None:
    means, covars = (v[:3].clone().requires_grad_() for v in scene(0.5))
    views = ring_of_cameras(1)
    viewmat, K = views.viewmats[0].clone().requires_grad_(), views.Ks[0].clone().requires_grad_()

    def outputs(means: Tensor, covars: Tensor, viewmat: Tensor, K: Tensor) -> tuple[Tensor, ...]:
        symmetric = (covars + covars.transpose(1, 2)) / 2
        p = projection.project(means, symmetric, viewmat, K, (37, 23))
        return p.means2d, p.covars2d, p.conics, p.depths, p.compensations

    assert torch.autograd.gradcheck(outputs, (means, covars, viewmat, K))


def test_wide_views_keep_their_size_in_angle() -> None:
    """A small ball far off the axis is stretched outwards by 1 / cos^2 and sideways by 1 / cos of its angle."""
    K = torch.tensor([[10.0, 0, 50], [0, 10.0, 50], [0, 0, 1]], dtype=F64)
    angle = math.radians(60)
    mean = 5 * torch.tensor([[math.sin(angle), 0.0, math.cos(angle)]], dtype=F64)
    covar = 0.01**2 * torch.eye(3, dtype=F64)[None]
    found = projection.project(mean, covar, torch.eye(4, dtype=F64), K, (100, 100), eps2d=0.0)
    angular = 0.01 / 5
    assert math.sqrt(found.covars2d[0, 0]) == pytest.approx(10 * angular / math.cos(angle) ** 2)
    assert math.sqrt(found.covars2d[0, 2]) == pytest.approx(10 * angular / math.cos(angle))
