"""Whole runs through the command line, on a tiny model."""

import json
import os
import signal
import subprocess
import sys
from functools import partial

import pandas as pd
import pytest

from kvbench.configuration.catalogue import default_strategies
from kvbench.configuration.chosen import workload_of
from kvbench.results.results import load
from kvbench.results.schema import REQUESTS, STEPS, SUMMARY
from tests.test_configuration import composed

TINY = ["model.num_heads=4", "model.num_kv_heads=2", "model.head_dim=8", "repetitions=2", "device=cpu"]
ONCE = [*TINY, "repetitions=1", "warmup=0"]
FILES = {
    "summary.csv",
    "steps.parquet",
    "requests.parquet",
    "sessions.parquet",
    "config.yaml",
    "environment.json",
    "report.md",
}


def only_folder(tmp_path, name):
    (folder,) = (tmp_path / "results" / name).iterdir()
    return folder


@pytest.mark.charts
def test_a_run_writes_its_folder(kvbench, tmp_path):
    out = kvbench("+scenario=short_chat", *TINY)
    folder = only_folder(tmp_path, "short_chat")
    assert {path.name for path in folder.iterdir()} == FILES | {"charts"}
    charts = {path.name for path in (folder / "charts").iterdir()}
    assert {"memory.png", "memory.svg", "latency.png", "panels.png", "pareto.svg"} <= charts
    results = load(folder)
    assert list(results.summary["strategy"]) == default_strategies()
    assert list(results.summary.columns) == list(SUMMARY)
    assert list(results.requests.columns) == list(REQUESTS)
    assert list(results.steps.columns) == list(STEPS)
    assert results.steps["repetition"].nunique() == 3  # one of warm-up
    for word in ("1 of 1 sessions, 6 requests", "Article, 1 layer, float32, 128 bytes a token", "cpu", "2 repetitions"):
        assert word in out
    for strategy in default_strategies():
        assert f"\n{strategy} " in out
    assert str(folder.relative_to(tmp_path) / "charts") in out
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["torch"]
    assert environment["seed"] == 0
    assert environment["arguments"] == ["+scenario=short_chat", *TINY]
    assert environment["again"].startswith(f"cd {tmp_path} && python -m kvbench +scenario=short_chat {TINY[0]} ")
    assert "num_heads: 4" in (folder / "config.yaml").read_text()
    assert not list(tmp_path.rglob("*.partial"))


def test_strategies_are_chosen_set_and_doubled(kvbench, tmp_path):
    instance = [
        "+strategy@strategy.fast=dynamic",
        "strategy.fast.growth_factor=3",
        "strategy.fast.initial_capacity=100",
    ]
    kvbench(
        "scenario=short_chat", "strategy=[static,dynamic]", "strategy.dynamic.initial_capacity=100", *instance, *ONCE
    )
    summary = load(only_folder(tmp_path, "short_chat")).summary.set_index("strategy")
    assert list(summary.index) == ["static", "dynamic", "fast"]
    # From 100: 150, 300, 500, 750, 1125. By three: 300 at 150 tokens, 900 at 500, 2700 at 1050.
    assert summary.loc["dynamic", "peak_allocated_bytes"] == 1125 * 128
    assert summary.loc["fast", "peak_allocated_bytes"] == 2700 * 128


@pytest.mark.charts("sweep")
def test_a_sweep_becomes_one_frame_and_one_set_of_charts(kvbench, tmp_path):
    sweep = ["strategy=dynamic", "strategy.dynamic.growth_factor=1.2,2.0"]
    kvbench("-m", "+scenario=periodic", *sweep, *TINY)
    folder = only_folder(tmp_path, "periodic")
    results = load(folder)
    column = "strategy.dynamic.growth_factor"
    assert results.summary[column].tolist() == [1.2, 2.0]
    assert results.summary["num_resizes"].is_monotonic_decreasing
    assert set(results.steps[column]) == set(results.requests[column]) == {1.2, 2.0}
    assert (folder / "charts" / "sweep.png").stat().st_size > 10_000
    assert (folder / "charts" / "sweep.svg").is_file()
    of_points = {"manifest.json", "points", ".claims", ".turns"}
    assert {path.name for path in folder.iterdir()} == FILES | {"charts"} | of_points


def test_a_glob_runs_what_it_can_and_skips_a_missing_trace_with_a_line(kvbench, tmp_path, monkeypatch):
    monkeypatch.setenv("KVBENCH_TRACES", str(tmp_path / "none"))
    out = kvbench("-m", "+scenario=glob([azure*,streaming*])", "strategy=dynamic", *ONCE)
    assert "skipped azure_conv:" in out
    assert "Azure/AzurePublicDataset" in out
    summary = load(only_folder(tmp_path, "sweep")).summary
    assert sorted(set(summary["scenario"])) == ["streaming", "streaming_400"]
    assert len(summary) == 2


def test_a_job_that_is_refused_does_not_stop_the_sweep(kvbench, tmp_path):
    kvbench("-m", "+scenario=streaming", "strategy=dynamic", "strategy.dynamic.growth_factor=0.5,2", *ONCE, status=2)
    summary = load(only_folder(tmp_path, "streaming")).summary
    assert summary["strategy.dynamic.growth_factor"].tolist() == [2, 0.5]
    assert summary["outcome"][0] == "completed"
    assert summary["outcome"][1].startswith("failed: strategy.dynamic: growth_factor")


def test_a_scenario_of_the_users_own(kvbench, tmp_path):
    text = "_target_: kvbench.workload.scenario.Appends\nappends: [10, 20]\n"
    (tmp_path / "mine.yaml").write_text(text)
    kvbench("+scenario=./mine.yaml", "strategy=exact", *ONCE)
    assert load(only_folder(tmp_path, "mine")).summary["num_tokens"].tolist() == [30]
    (tmp_path / "short_chat.yaml").write_text(text + "max_requests: 1\n")
    kvbench("+scenario=short_chat.yaml", "strategy=exact", *ONCE)
    assert load(only_folder(tmp_path, "short_chat_file")).summary["num_tokens"].tolist() == [30]


def test_a_scenario_that_builds_on_another(kvbench, tmp_path):
    (tmp_path / "longer.yaml").write_text("defaults:\n  - short_chat\n  - _self_\nappends: [500, 600]\n")
    kvbench("+scenario=longer.yaml", "strategy=exact", *ONCE)
    assert load(only_folder(tmp_path, "longer")).summary["num_tokens"].tolist() == [1100]


def test_a_trusted_package_is_admitted(kvbench, tmp_path, monkeypatch):
    (tmp_path / "mypackage.py").write_text(
        "from kvbench.strategy.static import Static\n\nclass Roomy(Static):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    node = "+strategy.roomy={_target_: mypackage.Roomy, max_seq_len: 2000}"
    kvbench("+scenario=short_chat", "strategy=static", node, "trusted=[mypackage]", *ONCE)
    summary = load(only_folder(tmp_path, "short_chat")).summary.set_index("strategy")
    assert summary.loc["roomy", "peak_bytes"] == 2000 * 128


def test_decode_is_real(kvbench, tmp_path):
    kvbench("+scenario=chat_poisson", "scenario.max_requests=3", "strategy=dynamic", *ONCE)
    results = load(only_folder(tmp_path, "chat_poisson"))
    assert results.environment["scenario"] == "chat_poisson"
    steps = results.steps
    assert (steps.loc[steps["phase"] == "decode", "num_tokens"] == 1).all()
    assert results.requests["ttft_s"].notna().all()
    assert results.requests["tpot_s"].notna().all()
    written = results.requests["prompt_tokens"] + results.requests["output_tokens"] - 1
    assert (results.requests["held_tokens"] == written).all()


def test_the_seed_of_a_run_draws_its_requests(kvbench, tmp_path):
    asked = ["+scenario=chat_poisson", "scenario.max_requests=3", "strategy=exact", "seed=1"]
    kvbench(*asked, *ONCE, "attend=false")
    drawn = load(only_folder(tmp_path, "chat_poisson")).requests["prompt_tokens"].tolist()
    expected, other = (workload_of(composed(*asked, f"seed={seed}"))[1] for seed in (1, 2))
    assert drawn == [request.num_append_tokens for session in expected.sessions for request in session.turns]
    assert drawn != [request.num_append_tokens for session in other.sessions for request in session.turns]


def test_real_requests_of_a_published_trace(kvbench, tmp_path, traces):
    path = traces / "AzureLLMInferenceTrace_conv.csv"
    if not path.is_file():
        pytest.skip(f"no {path}: the published trace is at Azure/AzurePublicDataset on GitHub")
    out = kvbench("+scenario=azure_conv", f"scenario.path={path}", "scenario.max_requests=4", "strategy=dynamic", *ONCE)
    assert "4 of 19,366 sessions" in out
    # The trace's first rows: 374 tokens in and 44 out, 396 and 109, 879 and 55, 91 and 16.
    requests = load(only_folder(tmp_path, "azure_conv")).requests
    assert requests["prompt_tokens"].tolist() == [374, 396, 879, 91]
    assert requests["output_tokens"].tolist() == [44, 109, 55, 16]


def test_the_recompute_experiment(kvbench, tmp_path):
    out = kvbench("+experiment=recompute", "experiment.context_tokens=[50,400]", *TINY)
    folder = only_folder(tmp_path, "recompute")
    frame = pd.read_csv(folder / "summary.csv")
    assert frame["context_tokens"].tolist() == [50, 400]
    assert frame["formula"].tolist() == [50**2 / 150, 400**2 / 500]
    assert frame["speedup"].tolist() == pytest.approx((frame["recompute_us"] / frame["cached_us"]).tolist())
    assert (folder / "charts" / "recompute.svg").is_file()
    assert "times as long" in out


def test_an_experiment_writes_its_folder(kvbench, tmp_path):
    out = kvbench("+experiment=comprehensive", "experiment.scenarios=[short_chat,long_document]", *TINY)
    folder = only_folder(tmp_path, "comprehensive")
    assert {path.name for path in folder.iterdir()} == FILES | {"charts", "raised_capacities.csv"}
    charts = [f"{name}_capacities.{ending}" for name in ("article", "raised") for ending in ("png", "svg")]
    assert sorted(path.name for path in (folder / "charts").iterdir()) == charts
    results = load(folder)
    assert len(results.summary) == len(pd.read_csv(folder / "raised_capacities.csv")) == 2 * 5
    assert results.steps["repetition"].nunique() == 3  # one of warm-up
    assert (results.environment["experiment"], results.environment["seed"]) == ("comprehensive", 0)
    report = (folder / "report.md").read_text()
    for words in (
        "cannot hold long\\_document",
        "## Raised capacities",
        "| static | too\\_long 1 of 6, unreached 3 of 6 | 13,500 |",
    ):
        assert words in report
    assert "cannot hold long_document" in out
    assert "attention off" in out
    assert max(map(len, out.split("The article's capacities")[0].splitlines()[2:])) <= 120


def test_experiments_of_a_sweep_become_one_table(kvbench, tmp_path):
    few = ["experiment.scenarios=[short_chat]", "experiment.growth_factors=[1.5,2.0]"]
    out = kvbench("-m", "+experiment=growth_factors", "experiment.initial_capacity=100,200", *few, *ONCE)
    folder = only_folder(tmp_path, "growth_factors")
    results = load(folder)
    assert results.summary["experiment.initial_capacity"].tolist() == [100, 100, 200, 200]
    assert results.summary["growth_factor"].tolist() == [1.5, 2.0, 1.5, 2.0]
    assert set(results.steps["scenario"]) == {"short_chat"}
    assert (folder / "1" / "charts" / "growth_factors.png").is_file()
    report = (folder / "report.md").read_text()
    assert "sweep over experiment.initial\\_capacity: 2 jobs, each with a report in its own folder" in report
    assert "sweep: 2 jobs in" in out


def test_a_workload_is_drawn(kvbench, tmp_path):
    out = kvbench("scenarios", "bursty_gamma")
    assert "coefficient of variation" in out
    assert (tmp_path / "results" / "scenarios" / "bursty_gamma.png").is_file()


def test_an_interrupt_says_what_was_written_and_leaves_no_half_file(tmp_path):
    command = [sys.executable, "-u", "-m", "kvbench", "+scenario=short_chat", "repetitions=500"]
    given = {"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A shell starts what it puts in the background deaf to interrupts.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, preexec_fn=heard, **given) as run:
        for line in run.stdout:
            if "repetitions after" in line:
                break
        os.kill(run.pid, signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "interrupted" in said
    assert "nothing was written" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
