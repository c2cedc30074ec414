"""Hash-grid fields and their bytes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scene3d.core.errors import FormatError
from scene3d.io.field_bytes import pack_field, pack_float16, round_field, unpack_field, unpack_float16
from scene3d.ops.hash_field import HashField, contract, corner_rows, new_field

PATH = Path("a.s3d")


def points(n: int = 40) -> torch.Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0))


def field(n_out: int = 3, n_row_bits: int = 8) -> HashField:
    return new_field(points(), n_out, n_levels=4, n_row_bits=n_row_bits)


def test_contraction_keeps_the_near_straight_and_takes_in_all_of_space() -> None:
    near = points() * 0.3
    near = near[near.norm(dim=1) <= 1]
    torch.testing.assert_close(contract(near), near / 4 + 0.5)
    far = contract(torch.tensor([[1e9, 0.0, 0.0], [0.0, -1e15, 0.0]]))
    torch.testing.assert_close(far, torch.tensor([[1.0, 0.5, 0.5], [0.5, 0.0, 0.5]]))


def test_contraction_is_continuous_at_the_unit_ball() -> None:
    edge = torch.nn.functional.normalize(points(), dim=1)
    torch.testing.assert_close(contract(edge * 0.9999), contract(edge * 1.0001), atol=1e-4, rtol=0)


def test_coarse_corners_have_rows_of_their_own() -> None:
    corners = torch.cartesian_prod(*[torch.arange(5)] * 3)
    rows = corner_rows(corners, (4, 4, 4), 128)
    assert len(rows.unique()) == 125
    assert int(rows.max()) < 128
    assert int(corner_rows(corners * 1000, (5000,) * 3, 64).max()) < 64


def test_features_at_a_corner_are_its_row() -> None:
    f = replace(field(), base=4, growth=1.0)
    corner = torch.tensor([[1, 2, 3]])
    expected = torch.cat([table[corner_rows(corner, (4, 4, 4), 256)] for table in f.tables], dim=1)
    torch.testing.assert_close(f.features(corner / 4), expected)


def test_features_between_corners_are_linear() -> None:
    f = replace(field(), base=4, growth=1.0)
    a, b = torch.tensor([[0.25, 0.5, 0.5]]), torch.tensor([[0.5, 0.5, 0.5]])
    torch.testing.assert_close(f.features(0.3 * a + 0.7 * b), 0.3 * f.features(a) + 0.7 * f.features(b))


def test_features_at_the_border_of_the_cube_are_finite() -> None:
    assert bool(field().features(torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])).isfinite().all())


def test_gradients_reach_tables_and_layers() -> None:
    f = field()
    leaves = [value.requires_grad_() for value in (f.tables, *f.layers)]
    f(points()).sum().backward()
    assert all(leaf.grad is not None and float(leaf.grad.abs().sum()) > 0 for leaf in leaves)


def test_a_packed_field_gives_the_rounded_values() -> None:
    f = field(12)
    chunks, facts = pack_field(f)
    back = unpack_field(chunks, facts, 12, PATH)
    torch.testing.assert_close(back(points()), round_field(f)(points()), rtol=1e-6, atol=1e-7)
    assert float((back.tables - f.tables).abs().max()) <= float(f.tables.abs().max()) / 127 * 0.51


def test_float16_numbers_come_back() -> None:
    values = torch.tensor([0.0, -1.5, 65504.0, 6e-8])
    assert bool((unpack_float16(pack_float16(values), 4) == values.half().float()).all())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tables": [4, 255, 2]}, "field: expected a shape"),
        ({"tables": [4, 1 << 30, 2]}, "field: expected a shape"),
        ({"tables": [32, 1 << 20, 8]}, "numbers in .* bytes are too many"),
        ({"tables": None}, "field: expected a shape"),
        ({"steps": [1.0]}, "steps: expected 4 finite numbers"),
        ({"steps": [1.0, 1.0, float("inf"), 1.0]}, "steps: expected 4 finite numbers"),
        ({"center": "x"}, "center: expected 3 finite numbers"),
        ({"scale": 0.0}, "field: its sizes are none"),
        ({"n_out": 4}, "field: its sizes are none"),
        ({"base": 10**7}, "field: its finest grid"),
    ],
)
def test_forged_facts_are_named(changes: dict, message: str) -> None:
    chunks, facts = pack_field(field())
    with pytest.raises(FormatError, match=message):
        unpack_field(chunks, {**facts, **changes}, 3, PATH)


def test_missing_chunks_are_named() -> None:
    _, facts = pack_field(field())
    with pytest.raises(FormatError, match="field: expected its facts and chunks"):
        unpack_field({}, facts, 3, PATH)
