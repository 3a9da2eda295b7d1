"""The chart of turns: medians and shares by hand, and what is left out."""

import numpy as np
import pandas as pd
import pytest

from kvbench.charts.turns import TurnsChart
from kvbench.results.series import by_turn


def _requests(**more: object) -> pd.DataFrame:
    """Of turns 1 and 2 three and two requests, one of a warm-up and one without a first token beside them."""
    frame = pd.DataFrame(
        {
            "strategy": "paged",
            "warmup": [False] * 6 + [True],
            "turn": [0, 0, 0, 1, 1, 1, 0],
            "ttft_s": [1.0, 2.0, 6.0, 3.0, 5.0, np.nan, 100.0],
            "prompt_tokens": [10, 10, 20, 40, 60, 70, 10],
        }
    )
    return frame.assign(**more)


def test_turns_by_hand() -> None:
    """Medians of 1, 2, 6 and of 3, 5; reused 8 of 40, and 50 of 100 tokens."""
    own = by_turn(_requests(hit_tokens=[0, 0, 8, 20, 30, 70, 10]), 2)["paged"]
    assert own.turns.tolist() == [1, 2]
    assert own.middle_s.tolist() == [2.0, 4.0]
    assert own.slow_s.tolist() == pytest.approx([5.2, 4.8])
    assert own.hit_share.tolist() == pytest.approx([0.2, 0.5])
    below = _requests(hit_tokens=[0, 0, 8, 20, 30, 70, 10], host_tokens=[0, 2, 0, 10, 0, 0, 0])
    assert by_turn(below, 2)["paged"].hit_share.tolist() == pytest.approx([0.25, 0.6])


def test_a_turn_that_few_have_reached_is_left_out() -> None:
    """Three requests are wanted, and the second turn has two; without a prefix cache there is no share."""
    own = by_turn(_requests(), 3)["paged"]
    assert own.turns.tolist() == [1]
    assert np.isnan(own.hit_share).all()


@pytest.mark.parametrize(("reused", "num_panels"), [({"hit_tokens": 5}, 2), ({}, 1)])
def test_a_panel_of_what_is_reused_where_something_is(reused: dict[str, int], num_panels: int) -> None:
    """And a sentence of first and last turn."""
    requests = pd.concat([_requests(**reused)] * 5)
    summary = pd.DataFrame(
        {"scenario": ["chat"], "strategy": ["paged"], "source": ["modelled"], "outcome": ["completed"]}
    )
    chart = TurnsChart(summary=summary, requests=requests)
    assert len(chart.figure().axes) == num_panels
    (said,) = chart.sentences()
    assert "turn 1 takes 2 s in the median, of turn 2 4 s" in said
    assert ("found in the cache" in said) == bool(reused)


def test_too_few_requests_are_said() -> None:
    """No turn has ten."""
    summary = pd.DataFrame(
        {"scenario": ["chat"], "strategy": ["paged"], "source": ["modelled"], "outcome": ["completed"]}
    )
    chart = TurnsChart(summary=summary, requests=_requests())
    assert chart.figure().axes
    assert chart.sentences() == ["Nothing by turn: no turn has 10 requests with a first token."]
