"""Progress lines, with a clock of our own."""

import io

import pytest

from scene3d.core.progress import Progress, duration_text, rate_text


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(stream, steps, seconds_per_step, **options):
    clock = Clock()
    with Progress(steps, "fitting", stream=stream, clock=clock, **options) as progress:
        for i in range(progress.done, steps):
            clock.now += seconds_per_step
            progress.advance(loss=f"{i}")
    return stream.getvalue()


def test_a_log_gets_a_plain_line_about_every_ten_seconds():
    lines = run(io.StringIO(), 100, 0.5).splitlines()
    assert len(lines) == 6  # at 10, 20, 30, 40, 50 s and at the end
    assert lines[0] == "fitting 20/100  2.0/s  40 s left  loss 19"
    assert "\r" not in "".join(lines)


def test_a_short_loop_says_nothing_in_a_log():
    assert run(io.StringIO(), 10, 0.01) == ""


def test_a_terminal_line_is_redrawn_in_place_and_ended_once():
    text = run(Terminal(), 20, 0.5)
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert text.count("\r") > 10
    assert "20/20" in text.rsplit("\r", 1)[1]


def test_a_shorter_line_covers_the_longer_one_before():
    stream, clock = Terminal(), Clock()
    progress = Progress(2, "x", stream=stream, clock=clock)
    clock.now = 1
    progress.advance(note="long " * 5)
    clock.now = 2
    progress.advance(note="")
    before, after = stream.getvalue().split("\r")[1:3]
    assert len(after) >= len(before.rstrip())


def test_what_a_resumed_run_did_before_is_no_speed():
    lines = run(io.StringIO(), 1000, 1.0, initial=980).splitlines()
    assert lines[0] == "fitting 990/1000  1.0/s  10 s left  loss 989"


def test_an_unknown_total_shows_no_time_left():
    clock, stream = Clock(), io.StringIO()
    with Progress(None, "reading", stream=stream, clock=clock) as progress:
        clock.now = 10
        progress.advance(5)
    assert stream.getvalue().splitlines()[0] == "reading 5  2.0 s each"


def test_a_closed_stream_does_not_end_the_work():
    stream = io.StringIO()
    stream.close()
    progress = Progress(3, "fitting", stream=stream, clock=Clock())
    progress.note("still here")
    assert progress.done == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.6, "8 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (59.7, "1 min 00 s")]
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration_text(seconds) == text


def test_slow_rates_are_told_per_step():
    assert rate_text(61.24) == "61.2/s"
    assert rate_text(0.25) == "4.0 s each"
