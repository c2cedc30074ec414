"""Closed surfaces from open ones."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from mesh_shapes import area_and_volume, dense_grid, euler_number, is_closed, sphere_field, square, torus_field

from scene3d.meshing.block_grid import extract_surface
from scene3d.meshing.poisson import close_surface


def test_a_sphere_with_holes_becomes_a_sphere():
    mesh = extract_surface(dense_grid(sphere_field, 1.0, 0.1))
    middles = mesh.corners().mean(dim=1)
    keep = (middles[:, 2] < 0.9) & (torch.rand(mesh.n_faces, generator=torch.Generator().manual_seed(0)) < 0.9)
    closed = close_surface(mesh.with_faces(keep), 64)
    area, volume = area_and_volume(closed)
    assert is_closed(closed)
    assert euler_number(closed) == 2
    assert abs(area / (4 * math.pi) - 1) < 0.02
    assert abs(volume / (4 / 3 * math.pi) - 1) < 0.03


def test_a_torus_keeps_its_hole():
    closed = close_surface(extract_surface(dense_grid(torus_field, 1.4, 0.1)), 64)
    assert is_closed(closed)
    assert euler_number(closed) == 0
    assert float(torus_field(closed.vertices).abs().mean()) < 0.02


@pytest.mark.parametrize("turn", [0.0, 0.4])
def test_what_was_not_seen_does_not_swell(turn: float):
    ball = extract_surface(dense_grid(sphere_field, 1.0, 0.1))
    rotation = torch.tensor([[1, 0, 0], [0, math.cos(turn), -math.sin(turn)], [0, math.sin(turn), math.cos(turn)]])
    upper = ball.with_faces(ball.corners().mean(dim=1)[:, 2] > 0)
    closed = close_surface(replace(upper, vertices=upper.vertices @ rotation.T), 64)
    assert is_closed(closed)
    assert euler_number(closed) == 2
    assert area_and_volume(closed)[1] == pytest.approx(2 / 3 * math.pi, rel=0.13)
    assert float((closed.vertices @ rotation)[:, 2].min()) > -0.15


@pytest.mark.parametrize("size", [1e-4, 1e4])
def test_sheets_of_all_sizes_are_closed_to_slabs(size: float):
    sheet = square(0.0)
    closed = close_surface(replace(sheet, vertices=sheet.vertices * size), 32)
    low, high = closed.vertices.amin(dim=0), closed.vertices.amax(dim=0)
    assert is_closed(closed)
    assert float(high[2] - low[2]) < 0.15 * float(high[0] - low[0])


def test_resolutions_out_of_range_are_refused_with_the_number_to_use():
    with pytest.raises(ValueError, match="resolution: expected a multiple of 8"):
        close_surface(square(0.0), 20)
    with pytest.raises(ValueError, match=r"resolution: 512 would take 5\.0 GB, allowed are 0\.1. Use 144 or less"):
        close_surface(square(0.0), 512, max_bytes=1 << 27)
    close_surface(square(0.0), 32, max_bytes=1 << 27)
