"""What modelled times are worth, and which rows may be compared."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from kvbench.charts.catalogue import sweep_charts
from kvbench.charts.cautions import warnings
from kvbench.charts.report import report_markdown
from kvbench.charts.sweep import SweepChart
from kvbench.charts.table import table_text
from kvbench.charts.tradeoff import ParetoChart
from kvbench.charts.verdict import verdict
from kvbench.results.provenance import is_fleet, kinds, model_errors, model_notes, origin, require_one_kind, whole_steps
from kvbench.runner.frames import results_of
from kvbench.runner.run import run
from kvbench.strategy.concat import Concat
from kvbench.strategy.paged import Paged
from kvbench.strategy.sinks import Sinks
from kvbench.workload.request import Request, Session
from tests.support.fake import Fake
from tests.support.frames import decode_work, make_frames

MACHINE = SimpleNamespace(name="this machine", validation=None)
VALIDATED = SimpleNamespace(
    name="this machine", validation={"error": 0.09, "noise": 0.04, "errors": {"static": 0.031, "dynamic": 0.142}}
)


@pytest.fixture(scope="module")
def measured():
    return make_frames(decode_work(300, 60)).summary.assign(backend="measured")


def modelled(measured, scope="cache", **changed):
    """The same rows as if modelled: times a step a tenth longer, and nothing repeated."""
    intervals = [name for name in measured if name.endswith(("_low", "_high"))]
    measured = measured.drop(columns=intervals).reindex(columns=measured.columns)
    about = {"source": "modelled", "scope": scope, "hardware": "H100", "backend": "modelled", "interval_from": None}
    return measured.assign(step_mean_us=1.1 * measured["step_mean_us"], **(about | changed))


def both(measured, **changed):
    return pd.concat([measured, modelled(measured, **changed)], ignore_index=True)


def rows(**columns):
    return pd.DataFrame({"source": ["modelled"], "hardware": ["H100"], "strategy": ["a"]} | columns)


def test_a_machine_that_was_never_measured_is_unvalidated():
    assert origin(MACHINE, "cache", "static") == pytest.approx(
        {"hardware": "this machine", "step_error": math.nan, "step_noise": math.nan}, nan_ok=True
    )
    assert origin(None, "cache", "static") == {}
    assert model_notes(rows()) == ["Modelled on H100: unvalidated."]
    assert model_notes(rows(source=["measured"])) == []


def test_errors_are_those_of_the_strategy_and_of_the_scope_that_was_validated():
    assert origin(VALIDATED, "cache", "static")["step_error"] == 0.031
    assert origin(VALIDATED, "cache")["step_error"] == 0.09
    assert origin(VALIDATED, "cache", "static")["step_noise"] == 0.04
    assert math.isnan(origin(VALIDATED, "cache", "other")["step_error"])
    assert math.isnan(origin(VALIDATED, "model", "static")["step_error"]), "the cache's error says nothing of a model's"


@pytest.mark.parametrize(
    ("errors", "noise", "said"),
    [
        ([0.09], 0.04, "error of a step's time 9 % (noise 4 %)"),
        ([0.031, 0.142], 0.04, "error of a step's time 3.1 to 14 % (noise 4 %)"),
        ([0.09], math.nan, "error of a step's time 9 %"),
        ([0.005, math.nan], 0.001, "error of a step's time 0.5 % (noise 0.1 %); unvalidated for b"),
        ([math.nan], 0.04, "unvalidated"),
    ],
)
def test_the_note_says_what_is_known(errors, noise, said):
    size = len(errors)
    frame = pd.DataFrame({"source": ["modelled"] * size, "hardware": "H100", "strategy": list("ab")[:size]})
    assert model_notes(frame.assign(step_error=errors, step_noise=noise)) == [f"Modelled on H100: {said}."]


def test_machines_of_which_the_same_is_known_share_a_note():
    frame = pd.DataFrame({"source": "modelled", "hardware": ["H100", "A100", "mine"], "strategy": "a"})
    frame = frame.assign(step_error=[math.nan, math.nan, 0.1], step_noise=0.02)
    assert model_notes(frame) == [
        "Modelled on H100, A100: unvalidated.",
        "Modelled on mine: error of a step's time 10 % (noise 2 %).",
    ]


def test_rows_of_one_kind_stay_together_and_others_are_refused(measured):
    (kind,) = kinds(measured)
    assert (kind.words, kind.ending, len(kind.rows)) == ("", "", len(measured))
    mixed = both(measured, scope="model")
    found = kinds(mixed)
    assert [kind.words for kind in found] == ["measured, of the cache alone", "modelled, of a whole model"]
    assert [kind.ending for kind in found] == ["_measured_cache", "_modelled_model"]
    with pytest.raises(
        ValueError, match="one source, scope and simulated_by; got measured, of the cache alone; modelled"
    ):
        require_one_kind(mixed, "this")
    for chart in (ParetoChart(summary=mixed), SweepChart(summary=mixed, parameter="backend")):
        with pytest.raises(ValueError, match="compares rows of one source"):
            chart.figure()
    fleet = modelled(measured, simulated_by="fleet")
    assert is_fleet(fleet)
    assert not is_fleet(mixed)
    assert kinds(pd.concat([mixed, fleet]))[2].words == "modelled, of the cache alone, event by event"


def test_modelled_times_are_held_against_measured_ones_of_the_same_run(measured):
    errors = model_errors(both(measured), ["backend"])
    assert errors["error"].tolist() == pytest.approx([0.1] * 3)
    assert errors["measured_us"].tolist() == measured["step_mean_us"].tolist()
    two = pd.concat([both(measured).assign(dtype=dtype) for dtype in ("float16", "float32")], ignore_index=True)
    assert len(model_errors(two, ["backend", "dtype"])) == 6, "float16 against float16"
    assert model_errors(both(measured, scope="model"), ["backend"]).empty
    assert model_errors(both(measured, simulated_by="fleet"), ["backend"]).empty
    assert model_errors(both(measured, outcome="too_long 1 of 1"), ["backend"]).empty


def test_a_sweep_over_backends_compares_one_kind_only(measured):
    assert [chart.name for chart in sweep_charts(both(measured), ["backend"])] == ["model_error"]
    assert sweep_charts(both(measured, scope="model"), ["backend"]) == []
    two = pd.concat(
        [both(measured, scope="model").assign(**{"model.num_layers": n}) for n in (1, 2)], ignore_index=True
    )
    charts = sweep_charts(two, ["backend", "model.num_layers"])
    assert [chart.name for chart in charts] == ["sweep_2_measured_cache", "sweep_2_modelled_model"]
    texts = [[text.get_text() for text in chart.figure().texts] for chart in charts]
    assert texts[1][0] == "What model.num_layers changes (modelled, of a whole model): short_chat"
    assert [len(each) for each in texts] == [1, 2], "the second says what it was modelled on"
    assert charts[0].sentences()[0].startswith("static: peak memory is")
    assert verdict(two, ["backend", "model.num_layers"])[2].endswith("whose times are not compared.")


def test_fronts_are_of_one_kind(measured):
    faster = both(measured, scope="model", total_s=1e-9, peak_bytes=1.0).assign(**{"strategy.x": 1})
    first, second = (chart for chart in sweep_charts(faster, ["strategy.x"]) if isinstance(chart, ParetoChart))
    assert (first.name, second.name) == ("pareto_measured_cache", "pareto_modelled_model")
    assert len(first.summary) == len(second.summary) == 3


def test_the_error_is_told(measured):
    (chart,) = sweep_charts(both(measured), ["backend"])
    sentences = chart.sentences()
    assert sentences[0].startswith("static: a step takes")
    assert sentences[0].endswith("measured: 10 % more.")
    assert sentences[-1] == "Mean over the strategies: 10 %."
    two = pd.concat([both(measured).assign(dtype=dtype) for dtype in ("float16", "float32")], ignore_index=True)
    said = sweep_charts(two, ["backend", "dtype"])[-1].sentences()[0]
    assert said == "static: modelled times a step are off by 10 % on average, from 10 to 10 %, of 2 runs."


def test_the_report_and_the_table_say_what_times_are_worth(measured):
    mixed = both(measured, step_error=[0.09, 0.09, math.nan], step_noise=0.04)
    first, head = table_text(mixed, ["backend"]).splitlines()[:2]
    assert first == "Modelled on H100: error of a step's time 9 % (noise 4 %); unvalidated for concat."
    assert head.split()[:4] == ["strategy", "backend", "times", "outcome"]
    report = report_markdown("x", [], mixed, [], ["backend"])
    assert "- Modelled on H100: error of a step's time 9 % (noise 4 %); unvalidated for concat.\n" in report
    assert "These rows are not all of one kind (measured, of the cache alone; modelled, of the cache alone)." in report
    assert "All times are of the cache and its attention alone" in report
    alone = report_markdown("x", [], modelled(measured, scope="model"), [])
    assert "All times are of a whole model" in alone
    assert "±" not in alone
    assert "Modelled" not in table_text(measured)


def test_the_models_error_decides_what_can_be_told_apart(measured):
    close = modelled(measured, tokens_per_s=[1000.0, 1080.0, 1500.0], step_error=0.09, step_noise=0.04)
    assert verdict(close, [])[1] == "**Equal within noise:** by throughput: static and dynamic."
    (found,) = warnings(modelled(measured))
    assert found.startswith("How far modelled times are from a machine's was never measured")
    assert "(concat)" in warnings(close.assign(step_error=[0.01, 0.01, math.nan]))[-1]


def test_a_run_on_a_modelled_machine_says_so_in_its_rows():
    backend = Fake()
    backend.source, backend.hardware = "modelled", VALIDATED
    requests = [Session(0, (Request(4, 3),))]
    strategies = {"static": Concat(), "other": Concat()}
    once = {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 1, "budget_bytes": None}
    summary = results_of(run(strategies, requests, backend, **once), requests, backend, "x").summary
    assert summary["hardware"].tolist() == ["this machine"] * 2
    assert summary["step_error"].tolist() == pytest.approx([0.031, math.nan], nan_ok=True)
    assert summary["simulated_by"].tolist() == ["runner"] * 2


def test_what_a_strategy_is_stands_in_its_row_whoever_ran_it():
    requests, strategies = (
        [Session(0, (Request(4, 3),))],
        {"paged": Paged(block_size=2, pool_tokens=None), "last": Sinks(num_sinks=1, window=2)},
    )
    once = {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": 1, "budget_bytes": 1 << 20}
    rows = results_of(run(strategies, requests, Fake(), **once), requests, Fake(), "x").summary.set_index("strategy")
    assert rows["lossless"].tolist() == [True, False]
    assert rows["reference"].tolist() == [False, False]
    assert rows["pool_bytes"].tolist() == [6 * Fake().slot_bytes, 0]  # of six tokens: three blocks of two
    assert rows["available_bytes"].tolist() == [1 << 20] * 2


def test_steps_of_an_iteration_are_one_where_they_are_a_whole_models():
    """Two requests share iteration 0, one of them prefills; iteration 1 decodes; an admission appends nothing."""
    steps = pd.DataFrame(
        {
            "strategy": ["s"] * 5,
            "repetition": [0] * 5,
            "iteration": [0, 0, 0, 1, 1],
            "warmup": [False] * 5,
            "session": [1, 0, 1, 0, 1],
            "turn": 0,
            "phase": ["admit", "decode", "prefill", "decode", "decode"],
            "num_tokens": [0, 1, 7, 1, 1],
            "num_resizes": [0, 1, 1, 0, 0],
            "step_us": [5.0, 20.0, 30.0, 12.0, 1.0],
        }
    )
    whole = whole_steps(steps, "model")
    assert whole["step_us"].tolist() == [50.0, 13.0]
    assert whole["num_tokens"].tolist() == [8, 2]
    assert whole["num_resizes"].tolist() == [2, 0]
    assert whole["phase"].tolist() == ["prefill", "decode"]
    assert whole_steps(steps, "cache")["step_us"].tolist() == [20.0, 30.0, 12.0, 1.0]
