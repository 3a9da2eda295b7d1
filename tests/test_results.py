"""A results folder: whole files or none, and what is read back is what was written."""

import os
import signal
import subprocess
import sys

import pandas as pd
import pytest
from matplotlib.figure import Figure

from kvbench.charts.chart import save
from kvbench.files import write_text, write_whole
from kvbench.results.results import SCHEMA_VERSION, Results, load
from kvbench.results.schema import REQUESTS


def test_a_file_that_could_not_be_written_leaves_nothing_and_takes_nothing_away(tmp_path):
    path = tmp_path / "folder" / "table.csv"
    write_text(path, "first")

    def fail(partial):
        partial.write_text("half of")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_whole(path, fail)
    assert path.read_text() == "first"
    assert [entry.name for entry in path.parent.iterdir()] == ["table.csv"]


def test_what_is_read_back_is_what_was_written(tmp_path):
    summary = pd.DataFrame({"strategy": ["a", "b"], "peak_bytes": [1, 2]})
    steps = pd.DataFrame({"strategy": pd.Categorical(["a", "b"]), "num_tokens": [3, 4]})
    requests = pd.DataFrame([dict.fromkeys(REQUESTS, 0) | {"turn": turn, "outcome": "completed"} for turn in (0, 1)])
    more = {"tables": {"unlimited": summary}, "environment": {"seed": 7, "device": "cpu"}}
    Results(summary=summary, requests=requests, steps=steps, configuration="seed: 7\n", **more).save(tmp_path)
    results = load(tmp_path)
    pd.testing.assert_frame_equal(results.summary, summary)
    pd.testing.assert_frame_equal(results.steps, steps)
    pd.testing.assert_frame_equal(results.requests, requests)
    assert results.sessions["num_turns"].tolist() == [2]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "sessions.parquet"), results.sessions)
    assert results.environment == {"seed": 7, "device": "cpu"}
    assert (results.configuration, results.folder, results.timeline) == ("seed: 7\n", tmp_path, None)
    pd.testing.assert_frame_equal(results.tables["unlimited"], summary)
    with pytest.raises(FileExistsError, match="has results in it"):
        results.save(tmp_path)


MARK = f'"schema_version": {SCHEMA_VERSION},'


@pytest.mark.parametrize("mark", ['"schema_version": 99,', '"schema_version": "new",', '"schema_version": null,', ""])
def test_a_folder_of_another_schema_says_so(tmp_path, mark):
    Results(summary=pd.DataFrame({"strategy": ["a"]}), environment={"again": "kvbench +scenario=x"}).save(tmp_path)
    text = (tmp_path / "environment.json").read_text()
    assert MARK in text
    (tmp_path / "environment.json").write_text(text.replace(MARK, mark))
    with pytest.raises(ValueError, match=f"written with schema .*; this kvbench reads {SCHEMA_VERSION}; kvbench"):
        load(tmp_path)


def test_a_folder_of_the_schema_before_says_simulated_by_where_it_said_engine(tmp_path):
    before = pd.DataFrame({"strategy": ["a"], "engine": ["fleet"]})
    Results(summary=before, schema_version=SCHEMA_VERSION - 1).save(tmp_path)
    results = load(tmp_path)
    assert results.summary["simulated_by"].tolist() == ["fleet"]
    assert "engine" not in results.summary
    assert results.schema_version == SCHEMA_VERSION


def test_an_environment_that_is_none_is_one_message(tmp_path):
    Results(summary=pd.DataFrame({"strategy": ["a"]})).save(tmp_path)
    (tmp_path / "environment.json").write_text("[]")
    with pytest.raises(ValueError, match=r"environment\.json is a mapping, got list"):
        load(tmp_path)


def test_an_unfinished_folder_says_what_is_missing(tmp_path):
    write_text(tmp_path / "summary.csv", "strategy\n")
    with pytest.raises(
        FileNotFoundError, match=r"no finished results folder: steps.parquet, requests.parquet, environ"
    ):
        load(tmp_path)


KILLED = """
import os, sys, time
from pathlib import Path
from kvbench.results.schema import REQUESTS
from kvbench.files import write_whole

def slowly(partial):
    with partial.open("w") as file:
        file.write("half of")
        file.flush()
        print("writing", flush=True)
        sys.stdin.read()

write_whole(Path(sys.argv[1]) / "summary.csv", slowly)
"""


def test_a_killed_process_leaves_no_half_file_under_the_final_name(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "summary.csv").exists()
    assert all(entry.name.startswith(".") for entry in tmp_path.iterdir())


def test_what_killed_processes_left_half_written_is_removed(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    long_ago = tmp_path / f".steps.parquet.{os.getpid()}.partial"  # of a process that had this one's number
    left = [tmp_path / f".summary.csv.{gone.pid}.partial", long_ago, tmp_path / f".a.{10**30}.partial"]
    kept = [
        tmp_path / f".requests.parquet.{os.getpid()}.partial",
        tmp_path / f".steps.parquet.{os.getppid()}.partial",
        tmp_path / ".notes.partial",
        tmp_path / f"summary.csv.{gone.pid}.partial",
    ]
    for path in (*left, *kept):
        path.write_text("half of")
    os.utime(long_ago, (1e9, 1e9))
    write_text(tmp_path / "report.md", "done")
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in kept} | {"report.md"}


def test_a_chart_removes_them_too(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f".memory.png.{gone.pid}.partial").write_text("half of")
    save(Figure(), tmp_path, "memory")
    assert {path.name for path in tmp_path.iterdir()} == {"memory.png", "memory.svg"}
