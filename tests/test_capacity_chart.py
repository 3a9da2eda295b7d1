"""The chart of what fits: lines are the requests, what is not served is not drawn, and the report says both ends."""

from kvbench.charts.capacity import CapacityChart

LINES = {"vllm": {310: 40, 1_024: 12, 2_048: 6, 4_096: 3}, "sinks": {310: 9, 1_024: 9, 2_048: 9, 4_096: None}}


def chart(**changed):
    return CapacityChart(**{"lines": LINES, "max_model_len": 2_048, "lengths": {"mean": 310}} | changed)


def points(line):
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_lines_are_the_requests_up_to_the_longest():
    (axes,) = chart().figure().axes
    engine, sinks, mean = axes.lines
    assert points(engine) == [(310, 40), (1_024, 12), (2_048, 6)]
    assert points(sinks) == [(310, 9), (1_024, 9), (2_048, 9)]
    assert list(mean.get_xdata()) == [310, 310]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert list(axes.get_xticks()) == [1_024, 2_048]
    assert [text.get_text() for text in axes.texts] == ["mean 310"]


def test_lengths_that_are_one_have_one_mark_and_those_not_served_none():
    (axes,) = chart(lengths={"mean": 310, "p95": 310, "most": 4_096}).figure().axes
    assert len(axes.lines) == 3
    assert [text.get_text() for text in axes.texts] == ["mean, p95 310"]


def test_the_engines_line_lies_behind_the_others():
    (axes,) = chart(behind="vllm").figure().axes
    engine, sinks, _ = axes.lines
    assert engine.get_zorder() < sinks.get_zorder()
    assert engine.get_linewidth() > sinks.get_linewidth()


def test_what_fits_nowhere_is_named():
    figure = chart(lines={"h100": LINES["vllm"], "t4": dict.fromkeys(LINES["vllm"], 0)}).figure()
    assert len(figure.axes[0].lines) == 2
    assert any("Not one request fits: t4" in text.get_text() for text in figure.texts)
    assert not chart(lines={"t4": {1_024: 0}}, lengths={}).figure().axes[0].lines


def test_its_sentences_say_both_ends():
    assert chart().sentences() == [
        "vllm: 40 requests of 310 tokens, 6 of 2,048.",
        "sinks: 9 requests of 310 tokens, 9 of 2,048.",
    ]
