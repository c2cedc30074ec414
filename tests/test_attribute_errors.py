"""Errors of what a format stores: order and names of axes do not count."""

from __future__ import annotations

import torch
from strategies import random_gaussians

from scene3d.core.gaussians import Gaussians
from scene3d.ops import quaternions
from scene3d.ops.axis_choice import symmetries
from scene3d.report.attribute_errors import attribute_errors

ROUNDING = 1e-6


def test_neither_order_nor_the_names_of_axes_are_errors() -> None:
    truth = random_gaussians(50, spread=3.0).to(dtype=torch.float32)
    turns, orders = symmetries()
    turned = quaternions.multiply(quaternions.normalize(truth.quats), turns[7].float().expand(50, 4))
    params = truth.params() | {"quats": turned, "log_scales": truth.log_scales[:, orders[7]]}
    found = Gaussians(**params).select(torch.randperm(50, generator=torch.Generator().manual_seed(0)))
    assert max(vars(attribute_errors(truth, found)).values()) < ROUNDING


def test_each_attribute_errs_by_what_it_was_moved() -> None:
    truth = random_gaussians(50, spread=30.0).to(dtype=torch.float32)
    params = truth.params() | {"means": truth.means + 0.01, "log_scales": truth.log_scales + 0.5}
    errors = attribute_errors(truth, Gaussians(**params))
    # Three components each; shapes are relative to the largest axis.
    torch.testing.assert_close(
        torch.tensor([errors.means, errors.log_scales]), torch.tensor([0.01, 0.5]) * 3**0.5, atol=1e-4, rtol=1e-4
    )
    assert max(errors.shapes, errors.opacities, errors.sh0, errors.shN) < ROUNDING


def test_what_is_not_seen_counts_less() -> None:
    truth = random_gaussians(50, spread=3.0).to(dtype=torch.float32)
    faint = truth.opacity_logits.clone()
    faint[:25] = -7.0
    truth = Gaussians(**(truth.params() | {"opacity_logits": faint}))
    sh0 = truth.sh0.clone()
    sh0[:25] += 0.1
    found = Gaussians(**(truth.params() | {"sh0": sh0}))
    assert attribute_errors(truth, found, by_visibility=True).sh0 < 0.3 * attribute_errors(truth, found).sh0
