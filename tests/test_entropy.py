"""Native entropy coding: what goes in comes out, and the bytes never depend on threads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scene3d import _cpu
from scene3d.io.entropy import (
    decode_cells,
    decode_layers,
    decode_refined,
    decode_symbols,
    encode_cells,
    encode_layers,
    encode_refined,
    encode_symbols,
)


@given(st.lists(st.integers(0, 300), max_size=300))
def test_symbols_come_back(symbols):
    assert decode_symbols(encode_symbols(np.array(symbols), 9), len(symbols), 9).tolist() == symbols


def test_symbols_of_every_width_come_back():
    generator = np.random.default_rng(0)
    for n_bits in range(1, 17):
        symbols = generator.integers(0, 2**n_bits, 500)
        assert np.array_equal(decode_symbols(encode_symbols(symbols, n_bits), 500, n_bits), symbols)


def test_symbols_out_of_range_are_refused():
    with pytest.raises(ValueError, match="expected 0 to 7"):
        encode_symbols(np.array([8]), 3)


def test_skewed_symbols_take_their_entropy():
    symbols = (np.random.default_rng(1).random(20_000) < 0.05).astype(int)
    entropy = -(0.05 * np.log2(0.05) + 0.95 * np.log2(0.95)) * len(symbols) / 8
    # Learning, and the finite precision of probabilities, cost a little.
    assert entropy * 0.9 < len(encode_symbols(symbols, 1)) < entropy * 1.05


@given(st.lists(st.tuples(*[st.integers(0, 2**20 - 1)] * 3), max_size=60), st.integers(0, 3))
def test_cells_come_back_in_the_order_told(cells, times):
    cells = np.array(cells * (times + 1), np.int64).reshape(-1, 3)
    octree, below, order = encode_cells(cells, 20)
    assert np.array_equal(decode_cells(octree, below, len(cells), 20), cells[order])


def test_the_order_of_cells_costs_nothing():
    cells = np.random.default_rng(2).integers(0, 2**10, (5000, 3))
    octree, below, _ = encode_cells(cells, 10)
    # log2(1024^3) less log2(5000!) / 5000 bits each.
    assert 8 * (len(octree) + len(below)) / 5000 < 30 - 10.8 + 0.7


def test_damaged_bytes_give_numbers_of_the_same_count():
    data = np.random.default_rng(3).integers(0, 256, 64, np.uint8).tobytes()
    assert decode_symbols(data, 1000, 9).max() < 2**9
    with pytest.raises(ValueError, match="another number"):
        decode_cells(b"", b"", 3, 20)


def test_planes_refuse_neighbors_that_come_later():
    column, bytes_of = np.zeros((2, 1), np.int32), lambda width: np.zeros((2, width), np.uint8)
    known, row, rule = np.zeros((2, 0), np.int32), np.zeros(1, np.int32), np.zeros((1, 1), np.int32)
    with pytest.raises(ValueError, match="expected rows before"):
        _cpu.encode_planes(
            column, bytes_of(1), np.ones((2, 1), np.int32), bytes_of(1), bytes_of(2), known, row, rule, 1, 0
        )


@pytest.mark.parametrize("n_bits", [3, 8, 12])
def test_layers_come_back_and_neighbours_make_them_smaller(n_bits: int):
    rng = np.random.default_rng(n_bits)
    rows = np.repeat(rng.integers(0, 2**n_bits, (4, 1, 40)), 25, axis=1)
    symbols = rows.reshape(4, 1000).astype(np.int32)
    above = np.arange(1000, dtype=np.int32) - 40
    alone = np.full(1000, -1, np.int32)
    sizes = []
    for places in (np.maximum(above, -1), alone):
        data = encode_layers(symbols, places, n_bits)
        assert np.array_equal(decode_layers(data, 4, places, n_bits), symbols)
        sizes.append(len(data))
    assert sizes[0] < 0.95 * sizes[1]
    with pytest.raises(ValueError, match="above: expected earlier places"):
        encode_layers(symbols, np.arange(1000, dtype=np.int32), n_bits)
    with pytest.raises(ValueError, match="symbols: expected 0 to"):
        encode_layers(symbols + 2**n_bits, alone, n_bits)


def test_finer_numbers_come_back_and_those_that_follow_from_others_cost_less():
    rng = np.random.default_rng(0)
    above = np.maximum(np.arange(1200, dtype=np.int32) - 40, -1)
    noise = rng.integers(-40, 41, (3, 1200))
    slope = np.tile(np.arange(30)[:, None] + np.arange(40), (3, 1, 1)).reshape(3, 1200)
    sizes = []
    for fine in (noise, slope):
        coarse = np.floor_divide(fine + 1, 3)
        data = encode_refined(fine, coarse, above)
        assert np.array_equal(decode_refined(data, coarse, above), fine)
        sizes.append(len(data))
    # A choice of three takes 1.585 bits.
    assert 0.95 * 3600 * 1.585 / 8 < sizes[0] < 1.1 * 3600 * 1.585 / 8
    assert sizes[1] < 0.5 * sizes[0]


def test_finer_numbers_that_do_not_follow_from_coarse_ones_are_refused():
    alone, ones = np.full(4, -1), np.ones((2, 4))
    with pytest.raises(ValueError, match="three times coarse, give or take one"):
        encode_refined(5 * ones, ones, alone)
    with pytest.raises(ValueError, match="coarse: expected as many as fine numbers"):
        encode_refined(3 * ones, ones[:1], alone)
    with pytest.raises(ValueError, match="above: expected one number for each place"):
        encode_refined(3 * ones, ones, alone[:3])


def test_cut_finer_numbers_are_near_the_coarse_ones():
    rng = np.random.default_rng(1)
    fine = rng.integers(-9, 10, (2, 500))
    coarse, above = np.floor_divide(fine + 1, 3), np.arange(500) - 1
    data = encode_refined(fine, coarse, above)
    for part in (b"", data[: len(data) // 2], bytes(len(data))):
        assert np.abs(decode_refined(part, coarse, above) - 3 * coarse).max() <= 1
