"""Signs of life off a terminal: a line at the start with an estimate, and one every 30 s, by a clock of tests."""

import io
import sys
from types import SimpleNamespace

import pytest

from kvbench.api.measure import seconds_of
from kvbench.api.progress import EVERY_S, Signs, alive, duration, tell, watched
from kvbench.workload.request import Request, Session


@pytest.fixture
def clock():
    return SimpleNamespace(now_s=100.0)


def signs(clock, total=4_000, unit="tokens"):
    return Signs(total, unit, now=lambda: clock.now_s)


def test_the_first_line_has_an_estimate(clock):
    assert signs(clock).first(240.0) == "running: 4,000 tokens, about 4.0 min; a line every 30 s"
    assert "4,000 tokens, how long is told when the first are done" in signs(clock).first(None)
    assert "not known beforehand" in signs(clock, 0).first(None)


def test_a_line_says_what_is_done_and_by_its_speed_how_long_the_rest_takes(clock):
    alive = signs(clock)
    clock.now_s += 30
    assert alive.line() == "running for 30 s: 0 of 4,000 tokens"
    alive.advance("dynamic, repetition 1", 600)
    alive.advance("dynamic, repetition 1", 400)
    clock.now_s += 30
    assert alive.line() == "running for 60 s: dynamic, repetition 1, 1,000 of 4,000 tokens, about 3.0 min to go"
    alive.advance("quality of sinks", 3_500)
    assert alive.line() == "running for 60 s: quality of sinks, 4,000 of 4,000 tokens"
    assert signs(clock, 0).line() == "running for 1 s or less"


def test_a_line_comes_every_thirty_seconds_until_the_end(clock):
    alive, said, waits = signs(clock), [], []

    def wait(seconds):
        waits.append(seconds)
        clock.now_s += seconds
        return len(waits) == 5

    tell(alive, wait, said.append)
    assert waits == [EVERY_S] * 5 == [30.0] * 5
    assert [line.partition(":")[0] for line in said] == [
        "running for 30 s",
        "running for 60 s",
        "running for 1.5 min",
        "running for 2.0 min",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s or less"),
        (1, "1 s"),
        (89, "89 s"),
        (90, "1.5 min"),
        (1_500, "25 min"),
        (5_400, "1.5 h"),
        (1e5, "28 h"),
    ],
)
def test_a_duration_is_as_exact_as_it_is_known(seconds, words):
    assert duration(seconds) == words


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "is_told"), [(io.StringIO, True), (Terminal, False)])
def test_lines_come_where_no_bar_can_be_drawn(stream, is_told, monkeypatch):
    seen = stream()
    monkeypatch.setattr(sys, "stderr", seen)
    with watched(10, "tokens", 3.0) as advance:
        advance("dynamic", 4)
    assert ("kvbench: running: 10 tokens, about 3 s; a line every 30 s\n" in seen.getvalue()) == is_told
    assert ("\r" in seen.getvalue()) != is_told


@pytest.mark.parametrize(("stream", "is_told"), [(io.StringIO, True), (Terminal, False)])
def test_what_draws_bars_of_its_own_gives_signs_elsewhere(stream, is_told, monkeypatch):
    seen = stream()
    monkeypatch.setattr(sys, "stderr", seen)
    with alive():
        pass
    assert ("kvbench: running: how long" in seen.getvalue()) == is_told


def test_the_estimate_grows_with_what_is_read():
    def estimate(*turns, bandwidth=1e9):
        return seconds_of([Session(0, tuple(Request(*turn) for turn in turns))], 1_000, bandwidth)

    # 100 steps; a prefill of 1,000 reads 0.1 x 1,000 x 500 tokens, 99 decodes 2 x 99 x 1,049.5, of 1,000 bytes each.
    assert estimate((1_000, 100)) == pytest.approx(100 * 3e-4 + (50_000 + 207_801) * 1e-6)
    assert estimate((1_000, 100), bandwidth=None) == pytest.approx(100 * 3e-4)
    assert estimate((1_000, 100), (10, 100)) > 2 * estimate((1_000, 100)) - 50_000 * 1e-6
