"""The chart of a workload: lengths, arrivals, and who is live."""

import pandas as pd

from kvbench.charts.workload import run_workload_chart, workload_chart


def test_workload_counts_requests():
    figure = workload_chart("chat", [10, 20, 20], [5, 5, 9], [0.0, 1.0, 3.0], ([0.0, 1.0, 4.0], [1, 2, 1]))
    prompts, outputs, arrivals, lives = figure.axes
    assert sum(bar.get_height() for bar in prompts.patches) == sum(bar.get_height() for bar in outputs.patches) == 3
    assert arrivals.lines[0].get_ydata().tolist() == [0, 1, 2, 3]
    assert lives.lines[0].get_ydata().tolist() == [0, 1, 2, 1]
    assert arrivals.get_xlabel() == "Time (s)"
    before_a_run = workload_chart("chat", [10], [0], [0.0]).axes[3]
    assert any("not known" in text.get_text() for text in before_a_run.texts)


def test_nobody_is_live_while_all_think():
    # Two steps of 1 s each, a minute of thought, and one more.
    steps = pd.DataFrame({"strategy": "exact", "repetition": 0, "num_live": [2, 1, 1], "end_s": [1.0, 2.0, 63.0]})
    steps = steps.assign(step_us=1e6, idle_us=[0.0, 0.0, 60e6])
    requests = pd.DataFrame({"strategy": "exact", "repetition": 0, "prompt_tokens": [4], "output_tokens": [1]})
    summary = pd.DataFrame({"strategy": ["exact"], "scenario": ["chat"], "source": ["measured"]})
    figure = run_workload_chart(summary, requests.assign(arrival_s=0.0), steps)
    line = figure.axes[3].lines[0]
    assert list(zip(line.get_xdata(), line.get_ydata(), strict=True))[1:] == [(0, 2), (1, 1), (2, 0), (62, 1), (63, 0)]
