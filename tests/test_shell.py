"""Adaptive shells: the band holds all matter, and what is seen through it is what the whole box shows."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from field_scenes import random_field
from small_scenes import views_around

from scene3d.core.fields import Field
from scene3d.meshing import shell as shell_module
from scene3d.meshing.shell import extract_shell, render_shell
from scene3d.ops.occupancy import cell_centers
from scene3d.ops.triangles import signed_distance
from scene3d.render import field_cpu
from scene3d.render.density import density_at
from scene3d.render.field import render_field

if not field_cpu.is_available():
    pytest.skip("the native module is not built", allow_module_level=True)

pytest.importorskip("scipy")


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    monkeypatch.setattr(shell_module, "CELLS", 40)


@functools.cache
def ball() -> Field:
    """A solid ball of radius 0.5 in fog that is not there."""
    field = random_field(nodes=(20, 20, 20), step=0.005).to(dtype=torch.float32)
    box = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    shape = (24, 24, 24)
    inside = cell_centers(shape, box).norm(dim=-1) < 0.5
    return replace(field, box=box, occupancy=inside, density_shift=1.0, density_scale=60.0)


def test_all_matter_lies_inside_of_the_outer_mesh():
    shell = extract_shell(ball())
    points = 2 * torch.rand(3000, 3, generator=torch.Generator().manual_seed(0)) - 1
    dense = points[density_at(ball(), points) > 1]
    assert len(dense) > 100
    assert float(signed_distance(shell.outer, dense).max()) <= 0.02
    assert float(signed_distance(shell.outer, shell.inner.vertices).max()) < 0


def test_a_shell_shows_what_the_box_shows_with_fewer_samples():
    camera = views_around(1, 48)
    truth = render_field(ball(), camera)
    seen = render_shell(ball(), extract_shell(ball(), depth_cells=4.0), camera)
    assert float((seen.rgb - truth.rgb[0]).square().mean()) < 1e-4
    assert seen.n_rays > 50
    assert seen.n_samples < 60 * seen.n_rays


def test_nothing_has_no_shell():
    empty = replace(ball(), density_shift=-40.0)
    with pytest.raises(ValueError, match="expected matter in its box"):
        extract_shell(empty)
