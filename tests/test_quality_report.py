"""Quality in a run's row, table, warnings and chart, and through the command line."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch

from kvbench.__main__ import main
from kvbench.api.probe import is_wanted
from kvbench.charts.catalogue import run_charts, sweep_charts
from kvbench.charts.cautions import warnings
from kvbench.charts.quality import QualityChart
from kvbench.charts.report import report_markdown
from kvbench.charts.table import table_text
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import LayerGroup
from kvbench.quality.recorded import write
from kvbench.results.results import load
from kvbench.strategy.sinks import Sinks
from tests.support.catalogue import preset
from tests.support.frames import THREE, make_frames

TINY = ["model.num_heads=4", "model.num_kv_heads=2", "model.head_dim=32", "repetitions=1", "warmup=0", "device=cpu"]
pytestmark = pytest.mark.usefixtures("undrawn")
FACTOR = "strategy.dynamic.growth_factor"


@pytest.fixture
def frames():
    """Static is lossless; dynamic and concat are made lossy: one acts, the other does not."""
    made = make_frames(noise=0.001)
    made.summary["lossless"] = [True, False, False]
    made.summary["seen_tokens"], made.summary["kept_tokens"] = 1050.0, [1050.0, 525.0, 1050.0]
    made.summary["kept_fraction"], made.summary["altered_tokens"] = [1.0, 0.5, 1.0], [0.0, 525.0, 0.0]
    made.summary["error_relative"], made.summary["cosine"] = [2e-7, 0.25, 3e-7], [1.0, 0.97, 1.0]
    made.summary["mass_kept"], made.summary["needle_recall"] = [1.0, 0.8, 1.0], [1.0, 0.5, 1.0]
    made.summary["probed_tokens"], made.summary["probed_altered_tokens"] = 1050.0, [0.0, 525.0, 0.0]
    return made


@pytest.fixture
def quality():
    found = {"static": (1, 1, 1), "dynamic": (0, 0.5, 1), "concat": (1, 1, 1)}
    rows = [
        {"strategy": name, "metric": "needle_recall", "depth": depth, "value": value}
        for name, values in found.items()
        for depth, value in zip((0.1, 0.5, 0.9), values, strict=True)
    ]
    return pd.DataFrame(rows)


def test_the_table_shows_quality_where_a_strategy_is_lossy(frames):
    shown = table_text(frames.summary)
    block = shown.split("\n\n")[-1].splitlines()
    assert block[0].split()[-5:] == ["kept", "error", "cosine", "mass", "recall"]
    assert block[1].split()[-4:] == ["%", "%", "%", "%"]
    assert block[2].split()[-5:] == ["100", "<0.001", "1", "100", "100"]
    assert block[3].split()[-5:] == ["50", "25", "0.97", "80", "50"]
    assert "recall" not in table_text(frames.summary.assign(lossless=True))
    assert "Kept is tokens" in report_markdown("x", [], frames.summary, [])
    assert "Kept is tokens" not in report_markdown("x", [], frames.summary.assign(lossless=True), [])


def test_a_lossy_strategy_that_never_acted_is_told_of(frames):
    (found,) = warnings(frames.summary)
    assert found.startswith("concat is lossy but never acted: it evicted and rounded nothing in this run, of 1,050")
    assert warnings(frames.summary.assign(lossless=True)) == []
    acted = frames.summary.assign(altered_tokens=[0.0, 525.0, 1.0])
    (found,) = warnings(acted)
    assert found.startswith("concat acted in the run, but not in the 1,050 tokens that were probed")
    assert warnings(acted.assign(probed_altered_tokens=[0.0, 525.0, 1.0])) == []


def test_a_strategy_without_quality_is_told_of(frames):
    summary = frames.summary.assign(error_relative=[2e-7, np.nan, 3e-7], altered_tokens=[0.0, 525.0, 1.0])
    found = warnings(summary.assign(probed_altered_tokens=[0.0, np.nan, 1.0]))
    assert found == ["dynamic has no quality: it does not hold the 1,050 tokens that were probed."]


def test_sentences_name_the_front_and_the_losses(frames):
    front, losses = QualityChart(summary=frames.summary).sentences()
    # Static's error is less by rounding alone, which decides nothing: concat, with less memory, beats it.
    assert front == "On the front of peak memory against error of attention's output: concat; 2 others are beaten."
    assert losses == (
        "Of the lossy ones, tokens kept are from 100 % (concat) to 50 % (dynamic), errors from 0.00003 % (concat) to "
        "25 % (dynamic) and needles found from 100 % (concat) to 50 % (dynamic)."
    )


@pytest.mark.parametrize(
    ("rounding", "on_front"), [(2**-7, "dynamic"), (2**-23, "static and dynamic"), (np.nan, "static and")]
)
def test_what_the_dtype_rounds_decides_no_front(frames, rounding, on_front):
    """Two errors of a few per cent that differ by less than bfloat16 rounds to, and by more than float32."""
    rows = frames.summary.assign(error_relative=[0.050, 0.052, 0.2], error_rounding=rounding)
    assert f"attention's output: {on_front}" in QualityChart(summary=rows.iloc[:2]).sentences()[0]
    zero = QualityChart(summary=rows.assign(error_relative=[2e-3, 2e-7, 0.2])).figure().axes[0]
    points = [line.get_xdata()[0] for line in zero.lines if line.get_linestyle() == "None"]
    assert points == [0.0 if rounding > 1e-3 else 2e-3, 0.0, 0.2]


def test_the_chart_shows_errors_and_recall(frames, quality):
    figure = QualityChart(summary=frames.summary, quality=quality).figure()
    left, right = figure.axes
    points = [line.get_xdata()[0] for line in left.lines if line.get_linestyle() == "None"]
    assert points == [0.0, 0.25, 0.0]  # below 0.0001: at 0
    assert left.get_xlabel() == "Relative error of attention's output"
    assert left.get_ylabel() == "Peak memory (MiB)"
    assert right.get_ylabel() == "Needles found (share of heads)"
    lines = {tuple(line.get_ydata()): line.get_xdata() for line in right.lines}
    assert list(lines[0, 0.5, 1]) == [0.1, 0.5, 0.9]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*THREE, "Pareto front"]
    alike = [line.get_xdata() for line in right.lines if tuple(line.get_ydata()) == (1, 1, 1)]
    assert alike[0] == pytest.approx(alike[1] - 0.022)


def test_of_many_strategies_those_on_the_front_of_errors_are_in_colour_and_grey_lines_are_named(frames, quality):
    times = ["total_s", "allocation_s", "decode_p99_us", "decode_p90_us", "decode_p50_us"]
    base = frames.summary.assign(lossless=False, error_relative=0.3, **dict.fromkeys(times, 1e3))
    row, recall = base.iloc[-1:], quality[quality["strategy"] == "concat"]
    quick = {"error_relative": 0.5, "peak_bytes": 1e3} | dict.fromkeys(times, 1.0)
    faithful = {"error_relative": 0.01, "peak_bytes": 1e12} | dict.fromkeys(times, 1e6)
    more = {f"quick_{number}": quick for number in range(7)} | {"faithful": faithful}
    figure = QualityChart(
        summary=pd.concat([base, *(row.assign(strategy=name, **own) for name, own in more.items())], ignore_index=True),
        quality=pd.concat([quality, *(recall.assign(strategy=name) for name in more)]),
    ).figure()
    coloured = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {*more} < coloured
    assert {text.get_text() for text in figure.axes[1].texts} == {*base["strategy"]} == {*THREE}


def test_the_chart_is_drawn_only_where_a_strategy_is_lossy(frames, quality):
    given = (frames.requests, frames.steps, quality)
    for summary, is_drawn in ((frames.summary, True), (frames.summary.assign(lossless=True), False)):
        assert any(isinstance(chart, QualityChart) for chart in run_charts(summary, *given)) == is_drawn
    swept = pd.concat([frames.summary.assign(**{FACTOR: factor}) for factor in (1.5, 2)], ignore_index=True)
    assert len(sweep_charts(swept, [FACTOR])[-1].figure().axes) == 1


def run(tmp_path, monkeypatch, *arguments, status=0):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["kvbench", "+scenario=short_chat", *TINY, *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == status
    folders = list(tmp_path.glob("results/short_chat/*"))
    return folders[-1] if folders else None


def test_a_run_with_a_lossy_strategy_has_its_quality(tmp_path, monkeypatch, capsys):
    chosen = ["strategy=[dynamic,sinks,int8]", "strategy.sinks.window=96", "strategy.int8.residual_tokens=2000"]
    folder = run(tmp_path, monkeypatch, *chosen)
    results = load(folder)
    summary = results.summary.set_index("strategy")
    assert summary["probed_tokens"].tolist() == [1050] * 3
    assert summary["probed_queries"].tolist() == [11] * 3
    assert summary.loc["dynamic", "error_relative"] < 1e-5
    assert summary.loc["sinks", "error_relative"] > 0.01
    assert summary.loc["sinks", "mass_kept"] < 1
    assert summary.loc["sinks", "kept_fraction"] == 100 / 1050
    assert summary.loc["sinks", "altered_tokens"] == summary.loc["sinks", "probed_altered_tokens"] == 950
    assert results.quality["depth"].tolist() == [0.1, 0.3, 0.5, 0.7, 0.9] * 3
    by_depth = results.quality[results.quality["strategy"] == "sinks"]["value"]
    assert summary.loc["sinks", "needle_recall"] == pytest.approx(by_depth.mean())
    assert (folder / "charts" / "quality.png").is_file()
    report = (folder / "report.md").read_text()
    assert "int8 is lossy but never acted" in report
    assert "quality: 11 queries of one request of 1,050 tokens" in report
    assert "recall" in capsys.readouterr().out


def test_it_can_be_left_out_and_asked_for(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).mkdir()
    folder = run(tmp_path / "a", monkeypatch, "strategy=sinks", "quality=false")
    assert load(folder).summary["error_relative"].isna().all()
    assert load(folder).quality is None
    assert not (folder / "charts" / "quality.png").exists()
    folder = run(tmp_path / "b", monkeypatch, "strategy=exact", "quality=true", "quality_tokens=500")
    assert load(folder).summary["probed_tokens"].tolist() == [500]
    assert load(run(tmp_path / "c", monkeypatch, "strategy=exact")).summary["cosine"].isna().all()


def test_recorded_data_is_probed(tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(1, 2, 300, 32, generator=generator) for _ in range(2))
    write(tmp_path / "kv.safetensors", keys, values, torch.randn(1, 4, 300, 32, generator=generator))
    given = f"quality_data={tmp_path / 'kv.safetensors'}"
    folder = run(tmp_path, monkeypatch, "strategy=[exact,sinks]", "strategy.sinks.window=96", given)
    results = load(folder)
    assert results.summary["probed_tokens"].tolist() == [300, 300]
    assert results.summary["needle_recall"].isna().all()
    assert results.summary["error_relative"].iloc[0] < 1e-5 < 0.1 < results.summary["error_relative"].iloc[1]
    assert results.quality is None
    assert "recorded in kv.safetensors" in (folder / "report.md").read_text()


@pytest.mark.parametrize(("model", "is_probed"), [("gemma3_1b", True), ("mistral_7b", True), ("windows", False)])
def test_left_to_auto_layers_that_see_all_tokens_are_probed(model, is_probed):
    sizes = {"layers": (0,), "key_dim": 8, "value_dim": 8, "num_heads": 1, "num_kv_heads": 1, "dtype": "float32"}
    windows = KVGeometry(groups=(LayerGroup(kind="window", tokens=8, **sizes),), dtype="float32")
    found = preset(model) if model != "windows" else windows
    geometry = KVGeometry(groups=found.groups, dtype=found.dtype)
    assert is_wanted({"quality": "auto", "quality_data": None, "data": None}, geometry, {"sinks": Sinks()}) == is_probed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["quality=maybe"], "quality is auto, true or false, got 'maybe'"),
        (["quality_tokens=1"], "quality_tokens is an integer of at least 64, got 1"),
        (["quality_data=5"], "quality_data is a path, or null, got 5"),
        (["quality_data=none.safetensors", "quality=false"], "quality=false asks for no probe"),
        (["quality_data=none.safetensors"], "none.safetensors: there is no such file"),
        (["strategy=sinks", "model.head_dim=4"], "head_dim of at least 8, got 4; quality=false leaves the probe out"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_run(tmp_path, monkeypatch, capsys, arguments, words):
    assert run(tmp_path, monkeypatch, *arguments, status=2) is None
    said = capsys.readouterr()
    assert words in said.err
    assert "repetition" not in said.out
