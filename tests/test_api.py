"""The public calls: what a command does, a call does, with the same columns, figures and messages."""

import itertools
import subprocess
import sys
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import kvbench as kv
from kvbench.configuration.composed import composed

LIGHT = """
import sys
import kvbench as kv
kv.Paged(), kv.Session, kv.plan.Reserve, kv.strategy.Chunked
assert not {"torch", "pandas", "matplotlib", "hydra"} & set(sys.modules), sorted(sys.modules)
"""
PRICED = {"model": "llama3_8b", "hardware": "h100"}


def test_importing_it_loads_neither_torch_nor_pandas():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_every_public_name_is_there_and_says_what_it_is():
    for name in kv.__all__:
        assert getattr(kv, name).__doc__, name
    assert set(dir(kv)) == set(kv.__all__)
    for package in (kv.plan, kv.strategy, kv.workload):
        assert all(getattr(package, name).__doc__ for name in dir(package))
    for missing in ("kv.pages", "kv.strategy.pages"):
        with pytest.raises(AttributeError, match="pages"):
            eval(missing)


def test_a_call_gives_what_the_command_gives(kvbench, tmp_path):
    kvbench(
        "+scenario=chat_poisson",
        "scenario.max_requests=6",
        "strategy=[paged,dynamic,int8]",
        "strategy.dynamic.growth_factor=2",
        "model=llama3_8b",
        "hardware=h100",
        "hydra.run.dir=told",
    )
    chosen = [kv.Paged(), kv.Dynamic(growth_factor=2), "int8"]
    results = kv.run("chat_poisson", chosen, settings={"scenario.max_requests": 6}, **PRICED)
    results.save(tmp_path / "called")
    told, called = kv.load(tmp_path / "told"), kv.load(tmp_path / "called")
    for name in ("summary", "requests", "sessions"):
        pd.testing.assert_frame_equal(getattr(told, name), getattr(called, name))
    assert told.environment["header"] == called.environment["header"]


def test_a_fleet_is_a_backend_as_any(capsys):
    fleet = {"scenario.max_requests": 10, "backend.repeats": 2}
    results = kv.run("chat_poisson", "paged", backend="fleet", settings=fleet, **PRICED)
    assert results.summary["simulated_by"].tolist() == ["fleet"]
    assert results.summary["num_requests"].tolist() == [20]
    kv.show(results)
    assert "paged" in capsys.readouterr().out


def test_a_backend_with_settings_is_the_one_that_the_keys_make(tmp_path):
    """A mapping, settings and an object are one thing, and the object checks what the keys do, in the same words."""
    few = {"scenario.max_requests": 3}
    for chosen, keys in (
        (kv.Modelled(memory_fraction=0.5, allocator="caching"), {"memory_fraction": 0.5, "allocator": "caching"}),
        (kv.Fleet(replicas=2, keep="summary"), {"replicas": 2, "keep": "summary"}),
    ):
        name = type(chosen).__name__.lower()
        told = kv.run(
            "chat_poisson",
            "paged",
            backend=name,
            settings=few | {f"backend.{key}": value for key, value in keys.items()},
            **PRICED,
        )
        called = kv.run("chat_poisson", "paged", backend=chosen, settings=few, **PRICED)
        pd.testing.assert_frame_equal(told.summary, called.summary)
        assert told.environment["header"] == called.environment["header"]
        with pytest.raises(ValueError, match="memory_fraction is a number above 0 and at most 1, got 2") as own:
            type(chosen)(memory_fraction=2)
        with pytest.raises(ValueError, match="memory_fraction") as of_keys:
            kv.run("chat_poisson", "paged", backend=name, settings={"backend.memory_fraction": 2}, **PRICED)
        assert str(of_keys.value) == f"backend: {own.value}"
    with pytest.raises(ValueError, match="is an object; give it what it needs where it is made"):
        kv.run("short_chat", "paged", backend=kv.Modelled(), settings={"backend.allocator": "none"}, **PRICED)
    measured = {"model.num_layers": 1, "repetitions": 1, "warmup": 0, "device": "cpu"}
    assert kv.run("short_chat", "paged", backend=kv.Measured(), settings=measured).summary["source"][0] == "measured"
    with pytest.raises(ValueError, match="name one, such as hardware=h100"):
        kv.run("short_chat", "paged", backend=kv.Modelled())


def test_what_is_chosen_has_defaults():
    """Strategies, scenarios, what they are made of, and backends; only what is read from a file names it."""
    of_files = {"Trace", "Empirical"}
    chosen = [
        each
        for package in (kv, kv.strategy, kv.workload)
        for each in map(partial(getattr, package), dir(package))
        if is_dataclass(each) and each.__module__.split(".")[1] in ("backend", "fleet", "strategy", "workload")
    ]
    values = {"Request", "Session", "Exchange", "Switch", "Workload"}
    made = {each.__name__: each() for each in chosen if each.__name__ not in of_files | values}
    assert {"Modelled", "Fleet", "Hierarchical", "Conversations", "Zipf", "Gamma"} <= set(made)
    rng = np.random.default_rng(0)
    for name in ("Conversations", "ParallelSampling", "Appends", "Dialogue"):
        assert made[name].workload(rng).sessions, name


def test_a_fleet_compares_what_is_set(capsys):
    few = {"scenario.max_requests": 4, "fleet_strategies": ["paged", "exact"]}
    results = kv.run("chat_poisson", backend="fleet", settings=few, **PRICED)
    assert results.summary["strategy"].tolist() == ["paged", "exact"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "x.safetensors"}, "an experiment decides itself what it appends and probes: leave data out"),
        ({"strategy.paged.block_tokens": 4}, "strategy.paged.block_tokens: an experiment has parameters of its own"),
    ],
)
def test_what_an_experiment_decides_is_not_set_beside_it(settings, message):
    with pytest.raises(ValueError, match=message):
        kv.study("claims", settings=settings)
    with pytest.raises(ValueError, match="experiment is a name, a YAML file or its keys, got 3"):
        kv.study(3)


def test_a_mapping_names_strategies_and_two_of_one_name_need_it():
    two = {"slow": kv.Dynamic(growth_factor=1.25), "fast": kv.Dynamic(growth_factor=4)}
    assert list(kv.run("short_chat", two, **PRICED).summary["strategy"]) == ["slow", "fast"]
    with pytest.raises(ValueError, match="two strategies are called dynamic"):
        kv.run("short_chat", list(two.values()), **PRICED)


def test_a_scenario_of_ones_own_is_an_object_or_a_file(tmp_path):
    own = kv.workload.Appends(appends=(10, 20))
    results = kv.run(own, "paged", **PRICED)
    assert results.steps["num_tokens"].sum() == 30
    path = tmp_path / "mine.yaml"
    path.write_text("_target_: kvbench.workload.scenario.Appends\nappends: [10, 20]\n", encoding="utf-8")
    same = kv.run(path, "paged", **PRICED)
    assert same.summary["scenario"].tolist() == ["mine"]
    assert same.summary["peak_bytes"].tolist() == results.summary["peak_bytes"].tolist()


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ({"scenario": "shrt_chat"}, {}, "unknown scenario 'shrt_chat'. Did you mean 'short_chat'"),
        ({"strategies": "pagde"}, {}, "unknown strategy 'pagde'. Did you mean 'paged'"),
        ({"strategies": []}, {}, "no strategy to run"),
        ({"strategies": 7}, {}, "strategies are names and strategies, or a mapping that names them, got 7"),
        ({"scenario": 5}, {}, "scenario: it is no scenario but a int"),
        ({"scenario": None}, {}, "scenario: it is no scenario but a NoneType; name one, or a file"),
        ({"backend": 5}, {}, "backend is measured, modelled or fleet, or the keys of one, got 5"),
        ({"hardware": "h1000"}, {}, "unknown hardware 'h1000'. Did you mean 'h100'"),
        ({}, {"repetition": 3}, "unknown key 'repetition'. Did you mean 'repetitions'"),
        ({}, {"tensor": 2}, "unknown key 'tensor'. Did you mean 'parallel.tensor'"),
        ({}, {"backend.memory": 0.5}, "unknown parameter of backend 'memory'"),
        ({}, {"warmup": -1}, "warmup is an integer of at least 0, got -1"),
        ({"model": {"num_layers": 2}}, {}, "model: missing"),
        ({}, {"model.name_or_path": "mine"}, "model.name_or_path=mine: nothing loads that model here"),
        ({}, {"model": "smollm2"}, "model is no setting: it is chosen by an argument of its own"),
        ({}, {"trusted": ["os"]}, "trusted is no setting"),
        (
            {},
            {"data": Path("none.safetensors")},
            "data=none.safetensors fills tensors, and backend=modelled makes",
        ),
        ({"strategies": None, "backend": "fleet"}, {"fleet_strategies": "paged"}, "fleet_strategies is a list of"),
        ({"model": 5}, {}, "model is a name, a config.json, its folder, a YAML file, a shape or its keys, got 5"),
    ],
)
def test_what_is_wrong_is_told_as_on_the_command_line(arguments, settings, message):
    given = {"scenario": "short_chat", "strategies": "paged"} | PRICED | arguments
    with pytest.raises(ValueError, match=message.replace("'", ".")):
        kv.run(given.pop("scenario"), given.pop("strategies"), settings=settings, **given)


def test_a_strategy_that_plans_what_cannot_be_done_is_told_as_on_the_command_line():
    class Odd(kv.Strategy):
        def on_append(self, seq, num_tokens, view):
            return (kv.plan.Append(seq, num_tokens),)

    with pytest.raises(ValueError, match="strategy mine planned what cannot be done: Append"):
        kv.run("short_chat", {"mine": Odd()}, **PRICED)


def test_a_scenario_is_described_as_the_verb_does(kvbench):
    found = kv.describe("bursty_gamma", settings={"scenario.max_requests": 12, "seed": 3})
    assert (found.name, found.numbers["num_sessions"]) == ("bursty_gamma", 12)
    assert found.text in kvbench("scenarios", "bursty_gamma", "scenario.max_requests=12", "seed=3")
    assert found.chart.figure().axes
    own = kv.describe(kv.workload.Appends(appends=(30, 10)))
    assert (own.name, own.numbers["prompt_tokens_sum"], own.chart.prompt_tokens) == ("appends", 40, [30, 10])
    with pytest.raises(ValueError, match="unknown scenario 'bursty_gama'"):
        kv.describe("bursty_gama")
    with pytest.raises(ValueError, match="seed is an integer of at least 0"):
        kv.describe("bursty_gamma", settings={"seed": -1})


def test_what_files_refer_to_is_filled_in():
    config = composed({"scenario": "short_chat"}, settings={"data": "mine.safetensors"})
    assert config["quality_data"] == "mine.safetensors"
    assert config["repetitions"] == 5
    assert composed({"experiment": "quality"}, settings={"text": "a.txt"})["experiment"]["text"] == "a.txt"


def test_what_is_done_when_a_run_is_stopped_is_not_lost(monkeypatch):
    def stopping(advance):
        def step(strategy, repetition, num_tokens):
            if repetition == 2:
                raise KeyboardInterrupt

        return step

    monkeypatch.setattr("kvbench.api.measure.stepping", stopping)
    small = {"repetitions": 4, "warmup": 0, "scenario.max_requests": 1}
    with pytest.raises(kv.Stopped, match="2 of 4 repetitions are done") as stop:
        kv.run(
            "short_chat",
            "paged",
            model={"num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "head_dim": 8, "dtype": "float32"},
            settings=small,
        )
    assert stop.value.results.summary["num_repetitions"].tolist() == [2]


def test_a_sweep_has_a_row_a_combination_and_strategy():
    over = {"strategy.dynamic.growth_factor": [1.5, 3], "seed": [0, 1]}
    results = kv.sweep("chat_poisson", ["paged", "dynamic"], over=over, settings={"scenario.max_requests": 2}, **PRICED)
    assert len(results.summary) == 8
    assert results.summary["strategy.dynamic.growth_factor"].tolist() == [1.5] * 4 + [3] * 4
    assert results.summary["seed"].tolist() == [0, 0, 1, 1] * 2
    assert results.environment["header"][0] == "sweep over strategy.dynamic.growth_factor, seed: 4 jobs"
    with pytest.raises(ValueError, match="at least one value each"):
        kv.sweep("short_chat", over={"seed": []})


def test_a_sweep_may_be_over_models_and_machines():
    over = {"hardware": ["h100", "l40s"], "model": ["llama3_8b"]}
    results = kv.sweep("short_chat", "paged", over=over, settings={"cache_only": True})
    assert results.summary["hardware"].tolist() == ["h100", "l40s"]
    assert results.summary["model"].tolist() == ["llama3_8b"] * 2
    assert results.summary["step_mean_us"].nunique() == 2
    with pytest.raises(TypeError, match="hardware"):
        kv.sweep("short_chat", "paged", over=over, hardware="h100")


def test_jobs_that_are_done_when_a_sweep_is_stopped_are_not_lost(monkeypatch):
    def stopping(advance):
        def step(strategy, repetition, num_tokens):
            if next(seen) > 12:  # six appends a job: in the third
                raise KeyboardInterrupt

        return step

    seen = itertools.count(1)
    monkeypatch.setattr("kvbench.api.measure.stepping", stopping)
    shape = {"num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "head_dim": 8, "dtype": "float32"}
    small = {"repetitions": 1, "warmup": 0}
    with pytest.raises(kv.Stopped, match="2 of 3 jobs are done") as stop:
        kv.sweep("short_chat", "paged", over={"seed": [3, 4, 5]}, model=shape, settings=small)
    assert stop.value.results.summary["seed"].tolist()[:2] == [3, 4]
    assert stop.value.results.environment["swept"] == ["seed"]


def test_what_was_assumed_of_a_model_is_said():
    unknown = {"model_type": "lama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    unknown |= {"vocab_size": 1000, "intermediate_size": 96}
    header = kv.run("short_chat", "exact", model=unknown, hardware="h100").environment["header"]
    assert any(line.startswith("assumed: model_type lama is not known") for line in header)
