"""The chart of a workload: lengths, arrivals, and who is live; appends in order."""

import pandas as pd

from kvbench.charts.workload import WorkloadChart


def chart(**changed):
    given = {"scenario": "chat", "prompt_tokens": [10, 20, 20], "output_tokens": [5, 5, 9], "num_sessions": 3}
    return WorkloadChart(**given | {"arrival_s": [0.0, 1.0, 3.0]} | changed)


def test_workload_counts_requests():
    prompts, outputs, arrivals, lives = chart(live=([0.0, 1.0, 4.0], [1, 2, 1])).figure().axes
    assert sum(bar.get_height() for bar in prompts.patches) == sum(bar.get_height() for bar in outputs.patches) == 3
    assert arrivals.lines[0].get_ydata().tolist() == [0, 1, 2, 3]
    assert lives.lines[0].get_ydata().tolist() == [0, 1, 2, 1]
    assert arrivals.get_xlabel() == "Time (s)"
    assert len(chart().figure().axes) == 3, "who is live is not known before a run"


def test_sessions_are_counted_where_they_are_fewer_than_requests():
    for changed, said in (({}, ""), ({"num_sessions": 2}, " of 2 sessions"), ({"num_turns": 8}, " of 3 sessions")):
        figure = chart(**changed).figure()
        texts = [text.get_text() for text in figure.texts]
        assert figure.axes[0].get_ylabel() == ("Sessions (count)" if "num_turns" in changed else "Requests (count)")
        assert f"Workload chat: {changed.get('num_turns', 3)} requests{said}" in texts


def test_one_session_of_appends_is_drawn_in_order():
    made = chart(output_tokens=[0, 0, 0], num_sessions=1)
    sizes, total = made.figure().axes
    assert [bar.get_height() for bar in sizes.patches] == [10, 20, 20]
    assert total.lines[0].get_ydata().tolist() == [0, 10, 30, 50]
    assert made.sentences() == ["3 requests; 50 tokens of prompts and outputs."]


def test_nobody_is_live_while_all_think():
    # Two steps of 1 s each, a minute of thought, and one more.
    steps = pd.DataFrame({"strategy": "exact", "repetition": 0, "num_live": [2, 1, 1], "end_s": [1.0, 2.0, 63.0]})
    steps = steps.assign(step_us=1e6, idle_us=[0.0, 0.0, 60e6])
    requests = pd.DataFrame({"strategy": "exact", "repetition": 0, "prompt_tokens": [4], "output_tokens": [1]})
    summary = pd.DataFrame({"strategy": ["exact"], "scenario": ["chat"], "source": ["measured"]})
    made = WorkloadChart.of_run(summary, requests.assign(arrival_s=0.0, session=0), steps)
    line = made.figure().axes[3].lines[0]
    assert list(zip(line.get_xdata(), line.get_ydata(), strict=True))[1:] == [(0, 2), (1, 1), (2, 0), (62, 1), (63, 0)]
