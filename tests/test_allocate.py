"""Allocation of bytes to attributes."""

from scene3d.compress.allocate import Choice, allocate

OPTIONS = {
    "a": [Choice(10, 4.0), Choice(20, 1.0), Choice(40, 0.1)],
    "b": [Choice(10, 1.0), Choice(30, 0.5)],
}


def test_without_need_the_cheapest_are_taken() -> None:
    assert allocate(OPTIONS, max_error=5.0) == {"a": 0, "b": 0}


def test_the_step_that_gains_most_per_byte_comes_first() -> None:
    assert allocate(OPTIONS, max_error=2.0) == {"a": 1, "b": 0}


def test_a_bound_that_is_out_of_reach_takes_the_most_exact() -> None:
    assert allocate(OPTIONS, max_error=0.0) == {"a": 2, "b": 1}


def test_bytes_are_never_exceeded() -> None:
    for budget in range(20, 75):
        taken = allocate(OPTIONS, max_bytes=budget)
        assert sum(OPTIONS[name][i].size_bytes for name, i in taken.items()) <= budget


def test_a_worse_way_that_costs_more_is_never_taken() -> None:
    assert allocate({"a": [Choice(5, 1.0), Choice(9, 2.0)]}, max_error=0.0) == {"a": 0}


def test_a_better_way_that_costs_less_is_taken_at_once() -> None:
    assert allocate({"a": [Choice(5, 1.0), Choice(4, 0.5), Choice(9, 0.4)]}, max_error=0.6) == {"a": 1}


def test_room_left_by_the_last_step_is_used() -> None:
    # The step to b's second way gains most per byte and makes a's second way needless.
    options = {"a": [Choice(1, 3.0), Choice(2, 1.0)], "b": [Choice(1, 9.0), Choice(11, 0.0)]}
    assert allocate(options, max_error=3.0) == {"a": 0, "b": 1}
