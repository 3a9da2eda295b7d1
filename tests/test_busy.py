"""What others take of the processors, from the kernel's own count."""

import os

import pytest

from kvbench.charts.cautions import of_busy_machine
from kvbench.results import environment
from kvbench.results.environment import Processors, since

STAT = """\
cpu  999 0 0 999 0 0 0 0 0 0
cpu0 100 10 20 300 40 1 2 5 50 7
cpu1 0 0 0 1000 0 0 0 0 0 0
cpu10 7777 0 0 0 0 0 0 0 0 0
intr 12 34
ctxt 5
"""


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """The kernel's file, as a test writes it, for a process that may use the first two processors."""
    path = tmp_path / "stat"
    monkeypatch.setattr(environment, "STAT", path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    return path


def test_by_hand(counted, monkeypatch):
    counted.write_text(STAT)
    monkeypatch.setattr(os, "times", lambda: (0.5, 0.25, 0.25, 0.0, 1234.0))
    # user, nice, system, irq, softirq and steal; what guests took is in user already
    assert Processors.now() == Processors(busy_s=1.38, total_s=14.78, own_s=1.0)


@pytest.mark.parametrize(
    ("busy_s", "total_s", "own_s", "share"),
    [
        (10, 20, 10, 0),  # all of it was ours
        (10, 20, 4, 0.3),
        (20, 20, 0, 1),
        (1, 20, 1.02, 0),  # two clocks, read one after the other
        (0.05, 0.09, 0, None),
    ],
)
def test_share(busy_s, total_s, own_s, share):
    start = Processors(3, 7, 2)
    assert start.taken_by_others(Processors(3 + busy_s, 7 + total_s, 2 + own_s)) == share
    assert start.taken_by_others(None) is None


@pytest.mark.parametrize("text", [None, "", "cpu0 some words\n", "cpu0 1 2 3\n", "cpu7 100 0 0 500 0 0 0 0 0 0\n"])
def test_a_system_that_does_not_tell(counted, text):
    if text is not None:
        counted.write_text(text)
    start = Processors.now()
    assert since(start) is None


def test_a_system_without_affinity(counted, monkeypatch):
    counted.write_text(STAT)
    monkeypatch.delattr(os, "sched_getaffinity")
    assert Processors.now() is None


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([None], None),
        ([0.1], None),
        ([0.101], "took 10.1 % of the processors during the run"),
        ([0.02, None, 0.5, 0.25], "took up to 50 % of the processors during 2 of 4 jobs"),
        ([0.02, None], None),
    ],
)
def test_a_busy_machine_is_warned_of(shares, words):
    found = of_busy_machine(shares)
    assert len(found) == (words is not None)
    assert all(words in line for line in found)
