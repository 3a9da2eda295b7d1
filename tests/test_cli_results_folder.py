"""Results folders: one run to a folder, whole whatever happens to it; in a sweep, a job that fails is a row."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from kvbench.cli.command_line import read
from kvbench.cli.folder import LOCK, config_of, folder_of, folder_override, held, locked
from kvbench.configuration.errors import UsageError, WriteFailed
from kvbench.results.results import Results, load

TINY = ["model.num_heads=4", "model.num_kv_heads=2", "model.head_dim=8", "repetitions=1", "warmup=0", "device=cpu"]
RUN = ["+scenario=short_chat", "strategy=exact", *TINY]


@contextmanager
def refused(words, error=UsageError):
    with pytest.raises(error) as raised:
        yield
    for word in words:
        assert word in str(raised.value)


def folder(*arguments):
    with read([*arguments]) as command:
        return str(folder_of(command, config_of(command)))


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["+scenario=short_chat", "hydra.run.dir='mix/${seed}'", "seed=7"], "mix/7"),
        (["+scenario=short_chat", "hydra.run.dir=${hydra.runtime.choices.model}"], "article"),
        (["+scenario=short_chat", "hydra.run.dir=5"], "5"),
        (["-m", "+scenario=short_chat", "seed=1,2", "hydra.sweep.dir='mix/${hydra.job.name}'"], "mix/kvbench"),
        (["-m", "+scenario=short_chat", "hydra.run.dir=mix", "hydra.sweep.dir=all"], "all"),
    ],
)
def test_the_folder_is_what_hydra_would_make_of_it(arguments, found):
    assert folder(*arguments) == found


def test_a_folder_that_names_the_time_is_one_folder():
    assert folder("+scenario=short_chat", "hydra.run.dir='mix/${now:%f}'").removeprefix("mix/").isdecimal()
    assert folder("+scenario=short_chat").startswith("results/short_chat/20")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hydra.run.dir=${nowhere}"], ["hydra.run.dir", "nowhere"]),
        (["hydra.run.dir=null"], ["hydra.run.dir=null"]),
        (["hydra.run.dir=''"], ["hydra.run.dir is a folder's path, got ''"]),
        (["hydra.run.dir=${hydra.job.num}"], ["hydra.run.dir", "hydra.job.num"]),
        (["-m", "hydra.sweep.dir='${scenario.name}'"], ["hydra.sweep.dir", "scenario.name"]),
    ],
)
def test_what_is_no_folder_is_refused(arguments, words):
    with refused(words):
        folder(*arguments, "+scenario=short_chat")


@pytest.mark.parametrize("path", ["a b", "it's", "a,b", "x=1", "[a]", "é", "a'b\"c"])
def test_a_folder_reaches_hydra_letter_by_letter(tmp_path, path):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([folder_override(tmp_path / path)])
    assert override.value() == str(tmp_path / path)


def test_a_sweep_that_is_written_can_be_helped(tmp_path):
    with locked(tmp_path, "it"):
        (tmp_path / "manifest.json").touch()
        with refused([f"or help it: python -m kvbench work {tmp_path}"]), locked(tmp_path, "it"):
            pass


def test_a_folder_is_held_by_one_and_left_as_it_was(tmp_path):
    where = tmp_path / "a" / "b"
    with held(where, "it"):
        with refused(["it: another run is writing to the folder"]), held(where, "it"):
            pass
        (tmp_path / "link").symlink_to(where)
        with refused(["another run"]), held(tmp_path / "link", "it"):
            pass
    assert not (tmp_path / "a").exists()
    (tmp_path / "empty").mkdir()
    with held(tmp_path / "empty", "it"):
        pass
    assert list((tmp_path / "empty").iterdir()) == []
    with held(where, "it"):
        (where / "summary.csv").write_text("rows")
    assert [path.name for path in where.iterdir()] == ["summary.csv"]
    with refused(["it: the folder is not empty", "summary.csv"]), held(where, "it"):
        pass


def test_a_lock_that_a_killed_run_left_keeps_nobody_out(tmp_path):
    (tmp_path / LOCK).write_text("")
    with held(tmp_path, "it"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300, "a\0b"])
def test_a_folder_that_cannot_be_made_is_told(tmp_path, name):
    (tmp_path / "file").write_text("")
    with refused(["cannot write to"], WriteFailed), held(tmp_path / name, "it"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_named_by_interpolation_is_used_once(kvbench, tmp_path):
    into = "hydra.run.dir='mix/${seed}'"
    kvbench(*RUN, into)
    before = {path: path.read_bytes() for path in (tmp_path / "mix" / "0").rglob("*") if path.is_file()}
    assert "not empty" in kvbench(*RUN, into, "strategy=static", status=2)
    assert {path: path.read_bytes() for path in (tmp_path / "mix" / "0").rglob("*") if path.is_file()} == before
    kvbench(*RUN, into, "seed=1")
    assert load(tmp_path / "mix" / "1").environment["seed"] == 1


def test_two_runs_that_start_together_do_not_share_a_folder(tmp_path):
    command = [sys.executable, "-m", "kvbench", *RUN, "hydra.run.dir=one"]
    with held(tmp_path / "one", "it"):
        second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert second.returncode == 2
    assert second.stderr == "kvbench: hydra.run.dir=one: another run is writing to the folder; name a new one\n"


BROKEN = """
from kvbench.strategy.static import Static


class Broken(Static):
    def __init__(self, max_seq_len, how):
        super().__init__(max_seq_len=max_seq_len)
        self.how = how

    def on_append(self, seq, num_tokens, view):
        match self.how:
            case "raises":
                raise ZeroDivisionError("one by none\\nand more")
            case "exits":
                raise SystemExit(3)
            case "recurses":
                return self.on_append(seq, num_tokens, view)
            case "plans":
                return ()
        return super().on_append(seq, num_tokens, view)
"""


def test_a_job_that_fails_in_any_way_is_a_row_and_the_others_stand(kvbench, tmp_path, monkeypatch):
    (tmp_path / "brokenpackage.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    node = "+strategy.own={_target_: brokenpackage.Broken, max_seq_len: 2000}"
    ways = "+strategy.own.how=works,raises,exits,recurses,plans"
    asked = ["-m", *RUN, node, ways, "trusted=[brokenpackage]"]
    said = kvbench(*asked, "hydra.sweep.dir=all", "hydra.sweep.subdir='deep/${hydra.job.num}'", status=1)
    results = load(tmp_path / "all")
    summary = results.summary.set_index("strategy.own.how")
    assert summary.loc["works", "outcome"].tolist() == ["completed", "completed"]
    assert summary.loc["works", "peak_bytes"].gt(0).all()
    outcomes = summary["outcome"].drop("works")
    assert outcomes["raises"] == "failed: ZeroDivisionError: one by none and more"
    assert outcomes["exits"] == "failed: SystemExit: 3"
    assert outcomes["recurses"].startswith("failed: RecursionError")
    assert outcomes["plans"].startswith("failed: ")
    assert set(results.steps["strategy.own.how"]) == {"works"}
    assert results.environment["jobs"] == ["deep/0"]
    assert results.environment["failed"] == ["1", "2", "3", "4"]
    kept = json.loads((tmp_path / "all" / "failed" / "1.json").read_text())
    assert "brokenpackage.py" in kept["trace"]
    assert "sweep: 1 jobs in all, 4 failed" in said
    assert "ZeroDivisionError: one by none and more" in (tmp_path / "all" / "report.md").read_text()
    assert {path.name for path in (tmp_path / "all" / "deep").iterdir()} == {"0"}


def test_a_sweep_of_which_every_job_fails_has_a_row_for_each(kvbench, tmp_path):
    sweep = ["strategy=dynamic", "strategy.dynamic.growth_factor=0.5,0.7"]
    said = kvbench("-m", "+scenario=short_chat", *TINY, *sweep, "hydra.sweep.dir=all", status=2)
    assert "kvbench: the sweep in all has no finished job" in said
    summary = load(tmp_path / "all").summary
    assert summary["strategy.dynamic.growth_factor"].tolist() == [0.5, 0.7]
    assert summary["outcome"].str.startswith("failed: ").all()


@pytest.mark.parametrize("subdir", ["same", ".", "../elsewhere"])
def test_jobs_of_a_sweep_do_not_share_a_folder(kvbench, tmp_path, subdir):
    asked = ["-m", *RUN, "seed=1,2", "hydra.sweep.dir=all", f"hydra.sweep.subdir={subdir}"]
    said = kvbench(*asked, status=2)
    assert ("the folder is not empty" if subdir == "same" else "is no folder below that of the sweep") in said
    summary = load(tmp_path / "all").summary
    done = summary[summary["outcome"] == "completed"]
    assert done["seed"].tolist() == ([1] if subdir == "same" else [])
    assert not (tmp_path / "elsewhere").exists()


def test_a_job_whose_folder_cannot_be_read_is_a_row(kvbench, tmp_path, monkeypatch):
    run = Results.save

    def breaks(results, folder, *more, **how):
        run(results, folder, *more, **how)
        if results.environment.get("seed") == 1:
            (folder / "steps.parquet").write_bytes(b"not parquet")

    monkeypatch.setattr(Results, "save", breaks)
    kvbench("-m", *RUN, "seed=1,2", "hydra.sweep.dir=all", "hydra/launcher=basic", status=1)
    summary = load(tmp_path / "all").summary
    assert summary["seed"].tolist()[0] == 2
    assert summary["outcome"][1].startswith("failed: ")
    assert os.listdir(tmp_path) == ["all"]
