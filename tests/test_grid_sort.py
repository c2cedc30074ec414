"""The grid sorter: permutations, order found again, any size, any number of threads."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scene3d import _cpu
from scene3d.ops.grid_sort import GridSortSettings, grid_sort, grid_width, neighbor_distance, to_grid


def scattered(n: int, d: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g) * (torch.rand(n, 1, generator=g) * 4 - 2).exp()


@given(n=st.integers(0, 70), d=st.integers(0, 35), width=st.none() | st.integers(1, 90))
def test_the_result_is_a_permutation_for_any_size(n: int, d: int, width: int | None) -> None:
    order = grid_sort(scattered(n, d), width)
    assert order.sort().values.tolist() == list(range(n))


def test_a_shuffled_plane_is_laid_out_flat_again() -> None:
    side = 24
    plane = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
    order = grid_sort(plane[torch.randperm(side * side, generator=torch.Generator().manual_seed(3))])
    shuffled = plane[torch.randperm(side * side, generator=torch.Generator().manual_seed(3))]
    # 1 is the least that any order of these points can have; a random order has about 12.5.
    assert neighbor_distance(shuffled, order, side) < 2


def test_numbers_sort_along_a_single_row() -> None:
    values = torch.randperm(64, generator=torch.Generator().manual_seed(1)).float()[:, None]
    order = grid_sort(values, width=64, settings=GridSortSettings(passes=32))
    assert neighbor_distance(values, order, 64) < 4  # 1 at best, 21 at random


@pytest.mark.parametrize("n", [256, 1000, 1023])
def test_neighbours_are_nearer_than_in_a_random_order(n: int) -> None:
    features = scattered(n, 14)
    width = grid_width(n)
    random = torch.randperm(n, generator=torch.Generator().manual_seed(9))
    found = neighbor_distance(features, grid_sort(features), width)
    assert found < 0.8 * neighbor_distance(features, random, width)


def test_features_wider_than_a_vector_are_all_compared() -> None:
    plane = torch.cartesian_prod(torch.arange(16), torch.arange(16)).float()
    wide = torch.zeros(256, 40)
    wide[:, [0, 39]] = plane
    order = grid_sort(wide)
    assert neighbor_distance(wide, order, 16) < 2


def test_the_order_does_not_depend_on_threads() -> None:
    features = scattered(3000, 5)
    before = _cpu.n_threads()
    orders = []
    for n_threads in (1, 2, 5):
        _cpu.set_threads(n_threads)
        orders.append(grid_sort(features))
    _cpu.set_threads(before)
    assert bool((orders[0] == orders[1]).all())
    assert bool((orders[0] == orders[2]).all())


def test_every_instruction_set_sorts_about_as_well() -> None:
    features, before = scattered(1024, 9), _cpu.simd_level()
    found = []
    for level in _cpu.simd_levels():
        _cpu.set_simd_level(level)
        found.append(neighbor_distance(features, grid_sort(features), 32))
    _cpu.set_simd_level(before)
    assert max(found) < 1.03 * min(found)


def test_equal_items_keep_a_valid_order() -> None:
    assert grid_sort(torch.ones(50, 3)).sort().values.tolist() == list(range(50))


def test_cells_behind_the_last_item_repeat_it() -> None:
    grid = to_grid(torch.arange(5.0)[:, None], 3)
    assert grid[..., 0].tolist() == [[0, 1, 2], [3, 4, 4]]


def test_the_squarest_grid_leaves_less_than_a_row_empty() -> None:
    for n in range(1, 200):
        width = grid_width(n)
        height = -(-n // width)
        assert width * height - n < width
        assert width - height in (0, 1)


def test_neighbour_distance_of_a_known_grid() -> None:
    features = torch.tensor([[0.0], [1.0], [3.0]])
    # Cells 0 1 / 2: right 0-1 is 1, down 0-2 is 3.
    assert neighbor_distance(features, torch.arange(3), 2) == 2.0


def test_a_number_that_is_not_finite_is_named() -> None:
    features = torch.zeros(4, 2)
    features[2, 1] = torch.inf
    with pytest.raises(ValueError, match=r"features: expected finite numbers, got \[0.0, inf\] in row 2"):
        grid_sort(features)


@pytest.mark.parametrize(
    ("width", "settings", "message"),
    [
        (0, GridSortSettings(), "width: expected at least 1 cell, got 0"),
        (None, GridSortSettings(passes=0), "passes: expected at least 1, got 0"),
        (None, GridSortSettings(decay=1.0), "decay: expected a number between 0 and 1, got 1.0"),
    ],
)
def test_settings_out_of_range_are_named(width: int | None, settings: GridSortSettings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid_sort(torch.zeros(4, 2), width, settings)
