"""What is said of a fleet: the table's columns, the sentences, and a sweep's folder."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from kvbench.charts.cautions import warnings
from kvbench.charts.markdown import report_markdown
from kvbench.charts.sentences import chart_sentences
from kvbench.charts.table import table_text
from kvbench.cli.failure import Failure, note
from kvbench.cli.sweep import collect
from kvbench.fleet.frames import fleet_frames
from kvbench.results.folder import write_text
from kvbench.results.results import Results, load
from tests.support.fleet_columns import OBJECTIVE, columns, three
from tests.support.frames import make_frames

RATE = "backend.rate_scale"


@pytest.fixture(scope="module")
def summary():
    return three().summary


def said(summary, chart):
    return chart_sentences(summary)[chart]


def test_the_table_has_the_columns_of_a_service(summary):
    note, head, units, static, *_ = table_text(summary).splitlines()
    assert note == "Modelled on H100: unvalidated."
    assert head.split()[:9] == [
        *("strategy", "outcome", "peak", "util.", "waste", "external", "batch", "preempted", "queue"),
    ]
    assert units.split()[:4] == ["MiB", "%", "%", "%"]
    # Of the 0.96 that static allocates 0.16 is used and 0.70 wasted.
    assert static.split()[:6] == ["static", "completed", "33,792", "16.7", "72.9", "4"]
    text = table_text(summary)
    for name in ("TTFT p50", "TPOT p50", "throughput", "served", "goodput", "attained"):
        assert name in text
    assert "TTFT p99" not in text, "forty requests have no 99th percentile"
    for name in ("resizes", "step", "admit", "stall", "±"):
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
        "Most goodput: paged, 4 requests/s; 80 % of all requests are within the objectives. The others: dynamic 2 and "
        "static 0.5.",
        "Most throughput: dynamic and paged, 1,000 tokens/s. The others: static 500 (50 % of that).",
        "Requests live together on a replica, averaged over time: static 1, dynamic 2 and paged 5.",
    ]
    nobody = rows.assign(goodput_per_s=0.0, attained_share=0.0)
    assert said(nobody, "fleet_service")[0] == "No strategy serves a request within the objectives."


def test_where_memory_goes(summary):
    first, static, _, paged = said(summary, "fleet_memory")
    assert first.startswith("Of memory that is allocated, or free but unusable")
    assert static == (
        "static: 16 % used, 10 % reserved for tokens to come, 70 % internal waste and 4 % external waste."
    )
    assert paged == "paged: 97 % used and 3 % internal waste."
    unknown = summary.assign(reserved_share=[math.nan, 0.1, 0.1])
    assert said(unknown, "fleet_memory")[1] == "static: not told apart."


def test_who_waits_and_who_preempts(summary):
    # Request i of 40 waits 20 ms × i × slowness: 390 ms on average, 1.17 s, 3.12 s.
    waiting, preempted = said(summary, "fleet_load")
    assert waiting == "Waiting for admission, on average: paged 390 ms, dynamic 1.17 s and static 3.12 s."
    assert preempted == "Preempted: paged 4 times (400 tokens computed again)."
    nobody = summary.assign(queue_mean_s=0.0, num_preemptions=0)
    assert said(nobody, "fleet_load") == ["No request waits for admission.", "No request is preempted."]


def test_how_long_requests_take(summary):
    assert said(summary, "fleet_times")[2] == (
        "paged: TTFT 420 ms in the median; TPOT 40 ms in the median; latency 780 ms in the median."
    )
    few = fleet_frames({"a": columns(num_requests=3)}, "chat", OBJECTIVE).summary
    assert said(few, "fleet_times") == ["a: TTFT 50 ms on average; TPOT 40 ms on average; latency 410 ms on average."]


def test_nobody_completed():
    rows = three(failed=40).summary
    assert said(rows, "fleet_service") == said(rows, "fleet_times") == ["No request completed."]
    report = report_markdown("chat", [], rows, ["fleet_service", "fleet_memory", "fleet_load", "fleet_times"])
    assert "- static: too\\_long 40 of 40" in report


def test_the_report_explains_what_it_shows(summary):
    report = report_markdown("chat", ["on H100"], summary, ["fleet_service", "fleet_times", "workload"])
    parts = [
        *(
            "## Results",
            "- Modelled on H100: unvalidated.",
            "| static |",
            "Peak is the most bytes that one replica held",
        ),
        *("All times are of a whole model", "## Warnings", "was never measured", "### Service"),
        *("![Service](charts/fleet_service.png)", "- Most goodput", "### Times of requests", "### Workload"),
    ]
    places = [report.index(part) for part in parts]
    assert places == sorted(places)
    assert "tokens, of completed requests." in report
    for name in ("± is the half", "One repetition only", "a resize's second buffer", "computed again: paged"):
        assert name not in report.split("## Charts")[0]


def test_text_from_outside_is_escaped():
    evil = "<b>|`x`|[a](b)*_"
    runs = {evil: columns(), "b": columns(slowness=2, preempted=1)}
    made = fleet_frames(runs, evil, OBJECTIVE).summary.assign(hardware="<i>H")
    names = ["fleet_service", "fleet_memory", "fleet_load", "fleet_times", "workload"]
    report = report_markdown("x", [], made, names)
    assert "<b>" not in report.replace(r"\<b\>", "")
    assert "<i>" not in report
    assert warnings(made)


def test_references_serve_best_of_none(summary):
    rows = summary.assign(goodput_per_s=[0.5, 2.0, 4.0], tokens_per_s=[500.0, 1000.0, 2000.0])
    goodput, tokens, _ = said(rows.assign(reference=[False, False, True]), "fleet_service")
    assert goodput.startswith("Most goodput: dynamic, 2 requests/s")
    assert tokens == (
        "Most throughput: dynamic, 1,000 tokens/s. The others: paged 2,000 (200 % of that), for reference and static "
        "500 (50 % of that)."
    )
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
    lines = report.splitlines()[2:8]
    assert lines[0].endswith("3 jobs")
    assert [line.rpartition("=")[2] for line in lines[1:4]] == ["0.5", "1.0", "2.0"]
    assert lines[4:] == ["- a model on a device", "- 5 repetitions"]
    assert "; goodput from" in report
    assert "Modelled on H100: unvalidated." in capsys.readouterr().out


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
