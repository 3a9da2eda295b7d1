"""What is said of a fleet: the table's columns, the sentences, and a sweep's folder."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from kvbench.charts.catalogue import fleet_charts
from kvbench.charts.cautions import warnings
from kvbench.charts.report import report_markdown
from kvbench.charts.table import table_text
from kvbench.charts.verdict import verdict
from kvbench.cli.failure import Failure, note
from kvbench.cli.sweep import collect
from kvbench.files import write_text
from kvbench.fleet.frames import fleet_frames
from kvbench.results.provenance import NOT_REPLAYED
from kvbench.results.results import Results, load
from tests.support.fleet_columns import OBJECTIVE, columns, three
from tests.support.frames import make_frames

RATE = "backend.rate_scale"


@pytest.fixture(scope="module")
def summary():
    return three().summary


def charts_of(made):
    return fleet_charts(made.summary, made.requests, made.timeline)


def said(summary, name, like=None):
    """What is said of a chart, with other rows in its summary."""
    made = like or three()
    charts = {chart.name: chart for chart in fleet_charts(made.summary, made.requests, made.timeline)}
    return replace(charts[name], summary=summary).sentences()


def test_the_table_has_the_columns_of_a_service(summary):
    note, head, units, static, *_ = table_text(summary).splitlines()
    assert note == f"Modelled on H100: {NOT_REPLAYED}."
    assert head.split()[:11] == [
        *(
            "strategy",
            "outcome",
            "peak",
            "util.",
            "waste",
            "external",
            "batch",
            "resizes",
            "copied",
            "preempted",
            "queue",
        ),
    ]
    assert units.split()[:4] == ["MiB", "%", "%", "%"]
    # Of the 0.96 that static allocates 0.16 is used and 0.70 wasted.
    assert static.split()[:6] == ["static", "completed", "33,792", "16.7", "72.9", "4"]
    text = table_text(summary)
    for name in ("TTFT p50", "TPOT p50", "throughput", "served", "goodput", "attained"):
        assert name in text
    assert "TTFT p99" not in text, "forty requests have no 99th percentile"
    for name in ("step", "admit", "stall", "±"):
        assert name not in text


def test_measured_rows_have_none_of_them():
    text = table_text(make_frames().summary)
    for name in ("external", "batch", "goodput", "served", "attained", "TTFT p50", "Modelled"):
        assert name not in text


def test_long_times_are_in_seconds(summary):
    assert " 8,500 " in table_text(summary.assign(queue_mean_s=[8.5, 1.0, 0.5]))
    lines = table_text(summary.assign(queue_mean_s=[125.0, 1.0, 0.5])).splitlines()
    place = lines[1].index("queue")
    assert lines[2][place : place + 5].strip() == "s"
    assert lines[3][place : place + 5].strip() == "125"


def test_who_serves_most(summary):
    rows = summary.assign(
        goodput_per_s=[0.5, 2.0, 4.0],
        attained_share=[0.1, 0.4, 0.8],
        tokens_per_s=[500.0, 1000.0, 1000.5],
        mean_batch=[1.0, 2.0, 5.0],
    )
    assert said(rows, "fleet_service") == [
        "Most goodput: paged, 4 requests/s; 80 % of all requests are within the objectives.",
        "Throughput runs from 1,000 tokens/s (paged) to 500 tokens/s (static); mean batches from 5 (paged) to 1 "
        "(static).",
    ]
    chosen = "paged, by goodput (4 requests/s, 100 % more than the next); by the model alone: how far"
    assert verdict(rows)[2].startswith(f"**What to choose:** {chosen}")
    equal = rows.assign(goodput_per_s=[0.5, 4.0, 4.0])
    assert "dynamic and paged are equal to a thousandth; of them dynamic holds least" in verdict(equal)[2]
    assert "equal within the model's error" in verdict(rows.assign(step_error=0.9))[2]
    nobody = rows.assign(goodput_per_s=0.0, attained_share=0.0)
    assert said(nobody, "fleet_service")[0] == "No strategy serves a request within the objectives."


def test_where_memory_goes(summary):
    (told,) = said(summary, "fleet_memory")
    assert told == (
        "Averaged over time, as shares of what is held or unusable, used is from 97 % (paged) to 16.7 % (static); "
        "internal waste from 3 % (paged) to 72.9 % (static); external waste from 0 % (paged) to 13 % (dynamic)."
    )
    unknown = summary.assign(waste_share=math.nan)
    assert "internal" not in said(unknown, "fleet_memory")[0]


def test_who_waits_and_who_preempts(summary):
    # Request i of 40 waits 20 ms × i × slowness: 390 ms on average, 1.17 s, 3.12 s.
    waiting, preempted = said(summary, "fleet_load")
    assert waiting == "Requests wait for admission, on average, from 390 ms (paged) to 3.12 s (static)."
    assert preempted == "Preempted: paged 4 times (400 tokens computed again)."
    nobody = summary.assign(queue_mean_s=0.0, num_preemptions=0)
    assert said(nobody, "fleet_load") == ["No request waits for admission.", "No request is preempted."]


def test_how_long_requests_take(summary):
    first, second, _ = said(summary, "fleet_times")
    assert first.startswith("TTFT in the median: from 420 ms (paged) to ")
    assert second == "TPOT in the median: 40 ms (static, dynamic and paged)."
    few = fleet_frames({"a": columns(num_requests=3)}, "chat", OBJECTIVE)
    assert said(few.summary, "fleet_times", few) == [
        "TTFT on average: 50 ms (a).",
        "TPOT on average: 40 ms (a).",
        "Latency on average: 410 ms (a).",
    ]


def test_nobody_completed():
    made = three(failed=40)
    rows = made.summary
    assert said(rows, "fleet_service") == said(rows, "fleet_times") == ["No request completed."]
    report = report_markdown("chat", [], rows, charts_of(made))
    assert "- static: too\\_long 40 of 40" in report


def test_the_report_explains_what_it_shows(summary):
    report = report_markdown("chat", ["on H100"], summary, charts_of(three()))
    parts = [
        *(
            "## Results",
            f"- Modelled on H100: {NOT_REPLAYED}.",
            "| static |",
            "Peak is the most bytes that one replica held",
        ),
        *("All times are of a whole model", "## Warnings", "they are what its figures come to", "### Service"),
        *("![Service](charts/fleet_service.png)", "- Most goodput", "### Times of requests", "### Workload"),
    ]
    places = [report.index(part) for part in parts]
    assert places == sorted(places)
    assert "tokens of prompts and outputs." in report
    for name in ("± is the half", "One repetition only", "a resize's second buffer", "computed again: paged"):
        assert name not in report.split("## Charts")[0]


def test_text_from_outside_is_escaped():
    evil = "<b>|`x`|[a](b)*_"
    runs = {evil: columns(), "b": columns(slowness=2, preempted=1)}
    frames = fleet_frames(runs, evil, OBJECTIVE)
    made = frames.summary.assign(hardware="<i>H")
    report = report_markdown("x", [], made, fleet_charts(made, frames.requests, frames.timeline))
    assert "<b>" not in report.replace(r"\<b\>", "")
    assert "<i>" not in report
    assert warnings(made)


def test_references_serve_best_of_none(summary):
    rows = summary.assign(goodput_per_s=[0.5, 2.0, 4.0], tokens_per_s=[500.0, 1000.0, 2000.0])
    goodput, tokens = said(rows.assign(reference=[False, False, True]), "fleet_service")
    assert goodput.startswith("Most goodput: dynamic, 2 requests/s")
    assert tokens.startswith("Throughput runs from 1,000 tokens/s (dynamic) to 500 tokens/s (static);")
    assert said(rows.assign(reference=True), "fleet_service")[0].startswith(
        "Only strategies that are there for reference"
    )


def asked(name, overrides):
    """Of a job's environment.json, what its sweep reads."""
    header = [f"{name}: {overrides[0]}", "a model on a device", "5 repetitions"]
    return {
        "scenario": name,
        "overrides": overrides,
        "arguments": ["-m"],
        "working_directory": "/tmp",
        "header": header,
    }


def job(folder, rate):
    made = three(num_requests=int(20 * rate))
    overrides = [f"{RATE}={rate}", "backend=fleet"]
    replace(made, environment=asked("chat", overrides)).save(folder)
    write_text(folder / "report.md", "done")


def test_a_sweep_of_fleets_becomes_one_folder(tmp_path, capsys):
    for number, rate in enumerate((0.5, 1.0, 2.0)):
        job(tmp_path / str(number), rate)
    collect(tmp_path, [RATE], ["+scenario=chat"])
    results = load(tmp_path)
    assert results.summary[RATE].tolist() == [0.5] * 3 + [1.0] * 3 + [2.0] * 3
    assert results.requests.groupby(RATE).size().tolist() == [30, 60, 120]
    assert results.timeline.groupby(RATE).size().tolist() == [24] * 3
    assert results.steps.empty
    for frame in (results.requests, results.timeline):
        assert frame["strategy"].cat.categories.tolist() == ["static", "dynamic", "paged"]
        assert frame["scenario"].unique().tolist() == ["chat"]
    assert (tmp_path / "charts" / "sweep.png").is_file()
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "- paged: throughput from" in report
    lines = report.partition("```\n\n")[2].splitlines()[:6]
    assert lines[0].endswith("3 jobs")
    assert [line.rpartition("=")[2] for line in lines[1:4]] == ["0.5", "1.0", "2.0"]
    assert lines[4:] == ["- a model on a device", "- 5 repetitions"]
    assert "; goodput from" in report
    assert f"Modelled on H100: {NOT_REPLAYED}." in capsys.readouterr().out


def test_a_sweep_over_engines_joins_what_each_has(tmp_path):
    job(tmp_path / "0", 1.0)
    made = make_frames(num_repetitions=2)
    about = asked("short_chat", ["backend=measured"])
    Results(summary=made.summary, requests=made.requests, steps=made.steps, environment=about).save(tmp_path / "1")
    write_text(tmp_path / "1" / "report.md", "done")
    collect(tmp_path, ["backend"], ["+scenario=chat"])
    results = load(tmp_path)
    assert results.summary["backend"].tolist() == ["fleet"] * 3 + ["measured"] * 3
    assert set(results.requests["backend"]) == {"fleet", "measured"}
    assert set(results.steps["backend"]) == {"measured"}
    assert set(results.timeline["backend"]) == {"fleet"}
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "not all of one kind (modelled, of a whole model, event by event; measured, of the cache alone)" in report


def test_a_sweep_over_a_column_of_the_summary_whose_jobs_all_failed(tmp_path):
    for number, name in enumerate(("h100", "l40s")):
        note(tmp_path, Failure(str(number), "chat", ["dynamic"], asked("chat", [f"hardware={name}"]), "no", True))
    num_finished, failures = collect(tmp_path, ["hardware"], ["hardware=h100,l40s"])
    assert (num_finished, len(failures)) == (0, 2)
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert summary["hardware"].tolist() == ["h100", "l40s"]
    assert summary["outcome"].tolist() == ["failed: no"] * 2
    assert "hardware.1" not in summary
