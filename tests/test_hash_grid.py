"""Hash grids, and fields with a network at every sample: sizes, files, and what cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from field_scenes import random_field

from scene3d.core.errors import FormatError
from scene3d.core.hash_grid import HashGrid, hash_grid
from scene3d.core.scene import Scene
from scene3d.io.field_codec import decode_field, encode_field
from scene3d.recon.field_settings import field_preset
from scene3d.recon.field_state import FIRST_FEATURE, first_state
from scene3d.render.density import density_at
from scene3d.render.field_bricks import takes

BOX = torch.tensor([[0.0, 0.0, 0.0], [4.0, 2.0, 1.0]])


def test_levels_have_cubic_cells_from_the_coarsest_to_the_finest():
    grid = hash_grid(BOX, 3, 8, 32, 13)
    assert grid.cells == ((8, 4, 2), (16, 8, 4), (32, 16, 8))
    assert [grid.n_rows(level) for level in range(3)] == [9 * 5 * 3, 17 * 9 * 5, 33 * 17 * 9]
    assert hash_grid(BOX, 3, 8, 32, 10).n_rows(2) == 1024


def test_the_table_holds_all_rows_at_any_rank():
    grid = HashGrid(((2, 2, 2),), 8)
    assert grid.table_rows(16) == 7  # 27 rows of 4
    assert grid.table_rows(48) == 3


@pytest.mark.parametrize(
    ("cells", "bits", "words"),
    [
        ((), 8, "expected 1 to 16 levels, got 0"),
        (((0, 1, 1),), 8, "expected 1 to 16384 along each axis"),
        (((1, 1, 1),), 30, "row_bits: expected 4 to 24, got 30"),
    ],
)
def test_wrong_sizes_are_said(cells, bits, words):
    with pytest.raises(ValueError, match=words):
        HashGrid(cells, bits)


@pytest.mark.parametrize("kind", ["hash", "mlp"])
def test_files_keep_every_bit(kind):
    field = random_field(kind, has_occupancy=True).to(dtype=torch.float32)
    back = decode_field(encode_field(Scene(field)), Path())
    assert back.grid == field.grid
    for before, after in zip(field.factors(), back.factors(), strict=True):
        assert torch.equal(before, after)


def test_damaged_levels_are_refused():
    container = encode_field(Scene(random_field("hash").to(dtype=torch.float32)))
    for grid in (None, {"cells": [], "row_bits": 7}, {"cells": [[1, 2]], "row_bits": 7}, {"cells": [[1, 2, 3]]}):
        with pytest.raises(FormatError, match=r"grid|cells|row_bits"):
            decode_field(replace(container, meta={**container.meta, "grid": grid}), Path("a.s3d"))


@pytest.mark.parametrize("kind", ["hash", "mlp"])
def test_a_network_begins_as_thin_fog(kind):
    settings = replace(field_preset("fast", kind, 10), first_voxels=24**3, last_voxels=24**3, row_bits=8)
    field = first_state(settings, BOX, None).field
    points = BOX[1] * torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    depth = density_at(field, points) * field.step
    expected = torch.nn.functional.softplus(torch.tensor(FIRST_FEATURE + field.density_shift))
    assert 0.2 < float(depth.median()) / float(expected * field.density_scale * field.step) < 5
    assert not takes(field)


def test_what_a_network_cannot_do_is_said():
    settings = field_preset("fast", "hash")
    with pytest.raises(ValueError, match="numbers of hash have no neighbours"):
        replace(settings, tv=0.1)
    with pytest.raises(ValueError, match="the grid of hash does not grow"):
        replace(settings, grow_at=(0.1,))
    with pytest.raises(ValueError, match="as units of hash: expected at most 128, got 16 and 256"):
        replace(settings, color_rank=256)
