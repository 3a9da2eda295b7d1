"""Any frame as a table, and an experiment's report: units, widths, and text from outside."""

import numpy as np
import pandas as pd
import pytest

from kvbench.charts.chart import Chart
from kvbench.charts.frame import WIDTH, frame_markdown, frame_text
from kvbench.charts.report import findings_markdown, findings_text

FRAME = pd.DataFrame(
    {
        "scenario": ["short_chat", "bursty"],
        "growth_factor": [1.5, 2.0],
        "outcome": ["completed", "too_long 1 of 1"],
        "num_tokens": [1050, 2700],
        "peak_bytes": [54.0 * 2**20, np.nan],
        "step_us": [20_000.0, 31_000.0],
        "stall_s": [0.0042, np.nan],
        "stall_s_low": [0.0041, np.nan],
        "stall_s_high": [0.0043, np.nan],
        "interval_from": ["repetitions", None],
        "tokens_per_s": [14_226.0, 15.25],
        "holds": [True, False],
        "note": ["kept", None],
    }
)


def test_units_come_from_names_and_numbers_are_scaled():
    assert frame_text(FRAME).splitlines() == [
        "scenario    growth factor  outcome          tokens  peak  step      stall  tokens a second  holds  note",
        "                                                     MiB    ms         ms",
        "short_chat            1.5  completed         1,050    54    20  4.2 ± 0.1           14,226  yes    kept",
        "bursty                  2  too_long 1 of 1   2,700     –    31          –             15.2  no     –",
    ]


def test_a_wide_table_goes_on_below_under_the_same_names():
    wide = FRAME[["scenario", "outcome"]].assign(**{f"a_rather_long_name_{n}_bytes": 2.0**20 * n for n in range(12)})
    text = frame_text(wide)
    blocks = text.split("\n\n")
    assert len(blocks) == 3  # 29 letters of names leave room for four columns of 22 each
    assert all(block.splitlines()[2].startswith("short_chat  completed") for block in blocks)
    assert max(map(len, text.splitlines())) <= WIDTH


def test_long_text_is_wrapped_and_moves_no_cursor():
    text = frame_text(
        pd.DataFrame({"claim": ["C7", "\x1b[31mred"], "words": ["one two " * 20, "short"], "value": [1, 2]})
    )
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\x1b" not in text
    assert len(text.splitlines()) > 6


def test_markdown_escapes_names_and_cells():
    made = frame_markdown(pd.DataFrame({"a|b": ["<x> | $y$"], "peak_bytes": [2.0**20], "experiment.n_tokens": [3]}))
    assert made.splitlines() == [
        r"| a\|b | peak (MiB) | experiment.n\_tokens |",
        "| --- | ---: | ---: |",
        r"| \<x\> \| \$y\$ | 1 | 3 |",
    ]


@pytest.mark.parametrize("frame", [FRAME.head(0), pd.DataFrame({"stall_s": [0.0]}), pd.DataFrame({"x": [None, 2.5]})])
def test_little_and_nothing_can_be_shown(frame):
    assert frame_text(frame)
    assert frame_markdown(frame).startswith("| ")


def test_the_report_has_findings_tables_and_charts_in_order():
    tables = {"summary": FRAME, "raised_capacities": FRAME.head(1)}
    report = findings_markdown("a_b", ["on *this*"], ["It holds <b>."], tables, [Chart(name="four_panels")], "do it")
    parts = [
        r"# a\_b",
        "## Findings",
        r"- It holds \<b\>.",
        "```sh\ndo it\n```",
        r"- on \*this\*",
        "## Results",
        "## Raised capacities",
        "± is half the width of the 90 % interval, from repetitions.",
        "### Four panels",
        "![Four panels](charts/four_panels.png)",
    ]
    places = [report.index(part) for part in parts]
    assert places == sorted(places)
    said = findings_text(["It holds."], tables)
    assert said.startswith("scenario ")
    assert "\n\nRaised capacities\nscenario " in said
    assert said.endswith("\n\nIt holds.")


def test_a_report_without_sentences_has_no_heading_for_them():
    assert "## Findings" not in findings_markdown("sweep", ["two jobs"], [], {"summary": FRAME}, [])
