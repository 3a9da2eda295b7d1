"""The highest load at which objectives hold, of real fleets and by the command line."""

import json
import math
from dataclasses import replace

import pytest

pytest.importorskip("numba", reason="the extra fleet is not installed")

import kvbench as kv
from kvbench.cli.rate import main
from kvbench.workload.arrivals import ClosedLoop, Poisson
from kvbench.workload.conversation import Conversations
from kvbench.workload.lengths import Uniform

LENGTHS = {"prompts": Uniform(low=200, high=900), "outputs": Uniform(low=20, high=60)}
CHATS = Conversations(num_requests=200, turns=1, arrivals=Poisson(rate_per_s=2), **LENGTHS)
SETTINGS = {"backend.replays": 2}
SERVED = {"model": "llama3_8b", "hardware": "h100", "settings": SETTINGS}


def test_a_rate_is_where_the_bound_begins_to_break():
    found = kv.rate(CHATS, ["dynamic", "paged"], subject_to="ttft_p90<=0.5", **SERVED)
    for row in found.rows.to_dict("records"):
        tried = found.tried[found.tried["strategy"] == row["strategy"]]
        held = tried.loc[tried["rate_per_s"] <= row["rate_per_s"], "ttft_p90_s"]
        beyond = tried.loc[tried["rate_per_s"] > row["rate_per_s"]].iloc[0]
        assert held.iloc[-1] <= 0.5 < beyond["ttft_p90_s"]
        assert beyond["rate_per_s"] == pytest.approx(row["rate_per_s"] * 2 ** (1 / 64))
        assert 0 < row["rate_per_s_low"] <= row["rate_per_s"] <= row["rate_per_s_high"]
        assert row["limited_by"] == "ttft_p90<=0.5"
    again = kv.run(
        CHATS, ["paged"], backend="fleet", **SERVED | {"settings": {**SETTINGS, "backend.rate_scale": 1.0}}
    ).summary
    at_first = found.tried[(found.tried["strategy"] == "paged") & (found.tried["rate_per_s"].sub(2).abs() < 0.5)]
    assert again["ttft_p90_s"].iloc[0] == pytest.approx(at_first["ttft_p90_s"].iloc[0], rel=0.02)
    assert "paged" in found.text
    assert len(found.chart.sentences()) == 2
    assert found.chart.figure().axes


def test_users_are_counted_where_they_wait_for_answers():
    users = Conversations(num_requests=200, turns=1, arrivals=ClosedLoop(concurrency=4), **LENGTHS)
    found = kv.rate(users, ["paged"], subject_to=["tpot_p90<=0.012"], **SERVED)
    (row,) = found.rows.to_dict("records")
    assert found.load == "users"
    assert row["users"] == int(row["users"]) > 4
    assert "highest users" in found.text


def test_what_lacks_a_figure_cannot_be_told_and_why_is_said():
    limits = ["ttft_p90<=0.5", "quality.kl<=0.02"]
    found = kv.rate(CHATS, ["paged", "fp8"], subject_to=limits, **SERVED)
    lossless, lossy = found.rows.to_dict("records")
    assert lossless["rate_per_s"] > 0
    assert math.isnan(lossy["rate_per_s"])
    assert lossy["rate_per_s_low"] == 0 < lossy["rate_per_s_high"]
    assert lossy["limited_by"] == "quality.kl<=0.02"
    ((why, whose),) = found.untold.items()
    assert whose == ["fp8"]
    assert f"fp8: {why}" in found.text
    assert found.as_dict()["rows"][1]["rate_per_s"] is None
    assert found.chart.sentences()[1].startswith("fp8: cannot be told (0 to ")
    assert found.chart.figure().axes
    empty = kv.rate(CHATS, ["paged"], subject_to="ttft_p99<=1", **SERVED)
    assert empty.rows["rate_per_s"].isna().all()
    assert "paged: ttft_p99_s is empty; a percentile takes ten requests beyond it" in empty.text


def test_nothing_holds_at_any_load():
    """Neither where hours of requests are drawn out to years, nor where some requests fit no machine."""
    rare = replace(CHATS, arrivals=Poisson(rate_per_s=0.02))
    none = kv.rate(rare, ["paged"], subject_to="ttft_p90<=1e-6", **SERVED)
    assert none.rows["rate_per_s"].tolist() == none.rows["rate_per_s_high"].tolist() == [0.0]
    assert none.rows["limited_by"].tolist() == ["ttft_p90<=1e-6"]
    long = replace(CHATS, prompts=Uniform(low=200, high=90_000))
    unserved = kv.rate(long, ["paged"], subject_to="ttft_p90<=100", **SERVED | {"hardware": "l4"})
    assert unserved.rows["rate_per_s"].tolist() == [0.0]
    assert unserved.rows["limited_by"].str.match("not all were served: out_of_memory [0-9]+ of 200").all()


def test_a_machine_that_holds_no_weights_is_refused_before_any_is_rated(monkeypatch):
    monkeypatch.setattr("kvbench.api.rating._rated", lambda *given: pytest.fail("one was rated"))
    with pytest.raises(ValueError, match=r"L4 24 GB has .* nothing is left for caches"):
        kv.rate(CHATS, ["paged"], subject_to="ttft_p90<=1", model="llama3_70b", hardware=["b200", "l4"])


def test_what_cannot_be_rated_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'ttft_p99_s'"):
        kv.rate(CHATS, ["paged"], subject_to="ttfp99<=1", **SERVED)
    with pytest.raises(ValueError, match="backend is fleet"):
        kv.rate(CHATS, ["paged"], subject_to="ttft_p90<=1", **SERVED, backend="modelled")
    with pytest.raises(ValueError, match="all requests arrive at once"):
        kv.rate("short_chat", ["paged"], subject_to="ttft_p90<=1", **SERVED)


def test_arguments_of_the_command_line(capsys):
    common = ["+scenario=chat_poisson", "hardware=[h100]", "model=llama3_8b", "strategy=paged", "backend.replays=0"]
    assert main([*common, "subject_to=[requests_per_s>=0]", "format=json", "scenario.num_requests=20"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["strategy"] == "paged"
    for arguments, why in (
        (common, "subject_to=… is missing"),
        (["subject_to=x<1"], "scenario=… is missing"),
        ([*common, "seed=1", "seed=2"], "seed=… stands twice"),
        ([*common, "fast"], "expected key=value"),
        ([*common, "subject_to=ttft_p90<=1", "format=xml"], "unknown format"),
        ([*common, "subject_to=ttft_p90<=1", "chart=x.pdf"], "ends in .png or .svg"),
        ([*common, "subject_to=ttft_p90<=1", "backend.replay=1"], "Did you mean 'replays'"),
    ):
        with pytest.raises(ValueError, match=why):
            main(arguments)
