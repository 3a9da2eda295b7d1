"""A run that is stopped, or whose disk is full: what was finished is kept, shown and counted."""

import errno
import json
import os
import signal

import pytest

from kvbench.api import measure as measured
from kvbench.api.measure import how_far
from kvbench.cli import run, writing
from kvbench.configuration.errors import WriteFailed
from kvbench.results.results import load

TINY = ["model.num_heads=4", "model.num_kv_heads=2", "model.head_dim=8", "device=cpu"]
RUN = ["+scenario=short_chat", "strategy=[static,exact]", *TINY, "hydra.run.dir=one"]


@pytest.fixture
def stopped_at(tmp_path, monkeypatch, kvbench):
    """Runs the command line and sends it a signal in a strategy's repetition; returns what the interrupt says."""

    def run_it(strategy, repetition, *arguments, number=signal.SIGINT):
        def stepping(advance):
            def step(name, at, num_tokens):
                if (name, at) == (strategy, repetition):
                    os.kill(os.getpid(), number)

            return step

        monkeypatch.setattr(measured, "stepping", stepping)
        handler = signal.signal(number, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt) as interrupt:
                run.main([*arguments])
        finally:
            signal.signal(number, handler)
        return str(interrupt.value)

    return run_it


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_finished_repetitions_are_kept_and_told(stopped_at, tmp_path, capsys, number):
    # Repetition 0 is warm-up; 1 begins with exact, 2 with static.
    said = stopped_at("exact", 2, *RUN, "repetitions=5", number=number)
    assert said == "2 of 5 repetitions are done (exact 1); they are in one"
    results = load(tmp_path / "one")
    assert results.summary["strategy"].tolist() == ["static", "exact"]
    assert results.summary["num_repetitions"].tolist() == [2, 1]
    assert results.summary["outcome"].tolist() == ["completed", "completed"]
    done = {"static": {0, 1, 2}, "exact": {0, 1}}
    for frame in (results.steps, results.requests):
        assert {name: set(rows["repetition"]) for name, rows in frame.groupby("strategy", observed=True)} == done
    line = "stopped: 2 of 5 repetitions are done (exact 1)"
    out = capsys.readouterr().out
    assert out.index(line) < out.index("strategy ") < out.index("charts: ")
    assert line in (tmp_path / "one" / "report.md").read_text()
    assert line in results.environment["header"]
    assert not (tmp_path / "one" / ".kvbench.lock").exists()


def test_a_strategy_that_finished_nothing_has_no_row(stopped_at, tmp_path):
    said = stopped_at("exact", 0, *RUN, "repetitions=1", "warmup=0")
    assert said == "1 of 1 repetitions are done (exact 0); they are in one"
    assert load(tmp_path / "one").summary["strategy"].tolist() == ["static"]


def test_where_nothing_was_finished_nothing_is_written(stopped_at, tmp_path):
    assert stopped_at("exact", 0, *RUN) == "nothing was written"
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_that_is_stopped_is_joined_of_what_it_has(stopped_at, tmp_path):
    swept = ["-m", *RUN[:-1], "seed=1,2,3", "hydra.sweep.dir=all", "warmup=0"]
    said = stopped_at("exact", 3, *swept)
    assert (
        said == "0 of 3 points are done, and of the next 3 of 5 repetitions are done; they are in all; the same "
        "command goes on"
    )
    summary = load(tmp_path / "all").summary
    assert summary["seed"].tolist() == [1, 1]
    assert summary["num_repetitions"].tolist() == [3, 3]


@pytest.mark.parametrize(
    ("finished", "words"),
    [
        ({"a": 0, "b": 0}, ""),
        ({"a": 2, "b": 2}, "2 of 3 repetitions are done"),
        ({"a": 2, "b": 1, "c": 0}, "2 of 3 repetitions are done (b 1, c 0)"),
    ],
)
def test_how_far_it_came(finished, words):
    assert how_far(finished, 3) == words


def test_all_repetitions_stand_where_the_probe_is_stopped(tmp_path, kvbench, monkeypatch):
    def stops(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(measured, "probed", stops)
    with pytest.raises(KeyboardInterrupt, match="2 of 2 repetitions are done; they are in one"):
        run.main([*RUN, "repetitions=2"])
    assert load(tmp_path / "one").summary["num_repetitions"].tolist() == [2, 2]


def test_a_signal_waits_for_what_is_being_written_and_a_second_does_not(tmp_path):
    handler = signal.getsignal(signal.SIGTERM)
    done = []

    def write(num_signals):
        with writing.writing(tmp_path):
            for _ in range(num_signals):
                os.kill(os.getpid(), signal.SIGTERM)
            done.append(num_signals)

    for num_signals in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            write(num_signals)
    assert done == [1]
    assert signal.getsignal(signal.SIGTERM) == handler


def full(*arguments, **how):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_while_drawing_loses_no_table(tmp_path, kvbench, monkeypatch):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    said = kvbench(*RUN, "repetitions=1", status=1)
    assert "\nstatic " in said
    assert (
        "kvbench: one: its charts or its report cannot be written: No space left on device; its rows are whole" in said
    )
    assert load(tmp_path / "one").summary["outcome"].tolist() == ["completed", "completed"]
    assert json.loads((tmp_path / "one" / "environment.json").read_text())["scenario"] == "short_chat"


def test_a_full_disk_while_writing_rows_loses_no_table(tmp_path, kvbench, monkeypatch):
    monkeypatch.setattr("pandas.DataFrame.to_parquet", full)
    said = kvbench(*RUN, "repetitions=1", status=1)
    assert "\nstatic " in said
    assert "kvbench: cannot write to one: No space left on device" in said
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_a_sweep_is_drawn_loses_no_table(tmp_path, kvbench, monkeypatch):
    monkeypatch.setattr("kvbench.api.shown.sweep_charts", full)
    said = kvbench("-m", *RUN[:-1], "seed=1,2", "hydra.sweep.dir=all", "repetitions=1", status=1)
    assert "all: its charts or its report cannot be written: No space left on device" in said
    assert load(tmp_path / "all").summary["seed"].tolist() == [1, 1, 2, 2]


def test_what_cannot_be_written_is_no_bad_input():
    assert WriteFailed("x").status == 1
