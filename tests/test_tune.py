"""The best deployment of real fleets, from Python and by the command line."""

import json

import pandas as pd
import pytest

pytest.importorskip("numba", reason="the extra fleet is not installed")

import kvbench as kv
from kvbench.cli.tune import main
from kvbench.decide.kept import Became
from kvbench.workload.arrivals import Poisson
from kvbench.workload.conversation import Conversations
from kvbench.workload.lengths import ConstantLength, Uniform

LENGTHS = {"prompts": Uniform(low=200, high=900), "outputs": Uniform(low=20, high=60)}
CHATS = Conversations(num_requests=150, turns=1, arrivals=Poisson(rate_per_s=30), **LENGTHS)
SETTINGS = {"backend.replays": 2}
SERVED = {"model": "llama3_8b", "hardware": ["h100", "l40s"], "search": ()}


def tuned(**changed):
    given = SERVED | {"settings": SETTINGS | {"backend.replicas": [1, 2]}} | changed
    return kv.tune(given.pop("scenario", CHATS), given.pop("strategies", ["paged", "exact"]), **given)


def test_all_of_a_small_space_is_tried_and_its_best_is_judged_beside_defaults():
    found = tuned(subject_to="ttft_p90<=0.5")
    assert (found.size, len(found.rows), found.is_exhaustive) == (8, 8, True)
    assert found.keys == ("hardware", "strategy", "backend.replicas")
    held = found.rows[(found.rows["verdict"] == "satisfied") & (found.rows["strategy"] != "exact")]
    best = found.best
    assert best["cost_per_million_tokens"] == held["cost_per_million_tokens"].min()
    assert best["strategy"] == "paged"  # an oracle is no choice, though it costs no more
    assert not found.rows.loc[found.rows["strategy"] == "exact", "on_front"].any()
    assert list(found.judged["role"].value_counts()[["best", "default"]]) == [1, 2]
    unseen = kv.run(
        CHATS, ["paged"], backend="fleet", model="llama3_8b", hardware=str(best["hardware"]),
        settings=SETTINGS | {"backend.replicas": int(best["backend.replicas"]), "seed": 1},
    ).summary  # fmt: skip
    row = found.judged.iloc[0]
    assert row["tokens_per_s"] == pytest.approx(unseen["tokens_per_s"].iloc[0])
    assert row["tokens_per_s_low"] == pytest.approx(unseen["tokens_per_s_low"].iloc[0])
    assert "on 150 requests, judged on as many of another seed" in found.text
    assert found.chart.figure().axes
    assert len(found.chart.sentences()) == len(set(found.rows.loc[found.rows["on_front"], "merged"]))
    plain = json.loads(json.dumps(found.as_dict()))
    assert plain["best"] == best["deployment"]
    assert plain["front"][0]["hardware"] == best["hardware"]


def test_what_is_the_default_itself_beats_nothing():
    found = tuned(hardware="h100", strategies=["paged", "static"], settings=SETTINGS)
    same = found.against[found.against["default"] == "h100"].iloc[0]
    assert same["ratio"] >= 1 or same["verdict"] == "better"
    if found.best["strategy"] == "paged":
        assert (same["ratio"], same["verdict"]) == (1, "equal")
        assert "equal; it did not beat it" in found.text


def test_a_deployment_that_cannot_be_served_is_a_row_with_its_error():
    found = tuned(model="llama3_70b", strategies=["paged"], parallel={"tensor": [1, 4]}, settings=SETTINGS)
    failed = found.rows[found.rows["verdict"] == "failed"]
    assert set(failed["parallel.tensor"]) == {1}
    assert failed["error"].str.contains("hold|memory|room", regex=True).all()
    assert found.best["parallel.tensor"] == 4
    assert list(found.judged.loc[found.judged["role"] == "default", "parallel.tensor"]) == [4, 4]


def test_ranges_that_parameters_declare_are_searched_with_their_strategy_alone(tmp_path):
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    given = {
        "hardware": "h100", "strategies": ["paged", "dynamic"], "trials": 8, "search": ("strategy.dynamic",),
        "settings": SETTINGS, "minimise": ["cost_per_million_tokens", "peak_bytes"], "folder": tmp_path / "kept",
    }  # fmt: skip
    found = tuned(**given)
    assert found.size is None
    assert len(found.rows) == 8
    grown = found.rows["strategy.dynamic.growth_factor"]
    assert grown.notna().tolist() == (found.rows["strategy"] == "dynamic").tolist()
    assert grown.dropna().between(1.1, 3.0).all()
    assert found.chart.figure().axes
    again = tuned(**given)
    assert again.rows["cost_per_million_tokens"].tolist() == found.rows["cost_per_million_tokens"].tolist()
    assert again.text == found.text
    with pytest.raises(ValueError, match="holds a search of another space"):
        tuned(**given | {"strategies": ["paged", "dynamic", "static"]})


def test_what_is_beside_a_row_is_there_before_it_is_judged(monkeypatch):
    told = []

    def figures_of(config, parts, name, row):
        told.append((config["strategy"][name]["_target_"], row["num_completed"]))
        assert parts.columns.num_requests == 150
        return {"quality_needle_share": 0.5 if name == "static" else 1.0}

    monkeypatch.setattr("kvbench.api.deployments.figures_of", figures_of)
    found = tuned(hardware="h100", strategies=["paged", "static"], settings=SETTINGS, subject_to="quality.needle>=0.9")
    assert ("kvbench.strategy.static.Static", 150) in told
    assert set(found.rows.loc[found.rows["verdict"] == "violated", "strategy"]) == {"static"}


def test_quality_that_nobody_measured_cannot_be_told():
    found = tuned(hardware="h100", strategies=["paged", "int4"], settings=SETTINGS, subject_to="quality.kl<=0.02")
    told = dict(zip(found.rows["strategy"], found.rows["verdict"], strict=True))
    assert told == {"paged": "satisfied", "int4": "cannot be told"}
    assert found.best["quality_kl"] == 0


@pytest.mark.parametrize(
    ("condition", "strategies", "why"),
    [
        ("quality.kl<=0.02", ["int4", "int2"], "int4 and int2: cannot be told: Llama-3.1-8B is figures"),
        ("ttft_p99<=1", ["paged", "static"], "paged and static: ttft_p99_s is empty; a percentile takes ten requests"),
        ("needle_recall>=0.9", ["paged", "static"], "paged and static: needle_recall is empty: nothing that is served"),
    ],
)
def test_a_condition_without_a_figure_cannot_be_told(condition, strategies, why):
    found = tuned(hardware="h100", strategies=strategies, settings=SETTINGS, subject_to=["ttft_p90<=5", condition])
    assert set(found.rows["verdict"]) == {"cannot be told"}
    assert found.best is None
    assert set(found.judged["role"]) == {"default"}
    assert f"\n{why}" in found.text
    assert list(found.as_dict()["untold"].values()) == [strategies]


def test_processes_share_a_search(tmp_path):
    given = {
        "settings": SETTINGS | {"engine.max_num_seqs": [32, 64, 128]},
        "engine": "vllm",
        "search": ("engine.block_size",),
    }
    alone, shared = tuned(**given), tuned(**given, workers=2, folder=tmp_path)
    assert alone.size == 2 * 2 * 3 * 5
    figures = [*alone.keys, "tokens_per_s", "verdict", "on_front"]
    assert shared.rows[figures].equals(alone.rows[figures])
    assert len(list((tmp_path / "rows").iterdir())) >= 2  # of who searched, and of who looked closely


def test_requests_that_no_seed_changes_are_said_to_be_the_same():
    same = Conversations(
        num_requests=20, turns=1, prompts=ConstantLength(tokens=300), outputs=ConstantLength(tokens=20)
    )
    found = tuned(scenario=same, hardware="h100", strategies=["paged", "static"], settings=SETTINGS)
    assert "20 requests, which no seed changes: they are judged on, too" in found.text


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"minimise": ["ttfp99"]}, "Did you mean 'ttft_p99_s'"),
        ({"minimise": ["ttft_p99"]}, "ttft_p99_s is empty; a percentile takes ten requests"),
        ({"subject_to": "ttft<<1"}, "subject_to is a measure, a comparison and a number"),
        ({"strategies": ["paged"], "hardware": "h100", "settings": SETTINGS}, "one deployment, and nothing to search"),
        ({"hardware": None}, "a search serves on machines"),
        ({"hardware": []}, "hardware is a list without a name"),
        ({"hardware": ["h100", "h100"]}, "'h100' stands twice"),
        ({"hardware": ["h100", "h1OO"]}, "Did you mean 'h100'"),
        ({"strategies": []}, "strategy is a list without a name"),
        ({"settings": {"backend.replicas": []}}, "backend.replicas is a list without a value"),
        ({"settings": {"backend.replicas": [1, 1]}}, "backend.replicas: 1 stands twice"),
        ({"settings": {"backend.replica": [1, 2]}}, "Did you mean 'replicas'"),
        ({"settings": {"backend.rate_scale": [1, 2]}}, "is of what is served, not of a deployment"),
        ({"settings": {"scenario.turns": [1, 2]}}, "is of what is served, not of a deployment"),
        ({"settings": {"strategy.dynamic.growth_factor": {"low": 3, "high": 1}}}, "low is below high"),
        ({"settings": {"strategy.dynamic.growth_factor": [1.5, 2]}}, "unknown strategy 'dynamic'"),
        ({"settings": {"strategy.pagd.block_size": 8, "backend.replicas": [1, 2]}}, "Did you mean 'paged'"),
        ({"search": ["strategy.dynamic"]}, "unknown key with a range 'strategy.dynamic'"),
        ({"search": ["engine"]}, "no engine is chosen"),
        ({"strategies": ["predictive", "paged"]}, "Predictive decides by"),
        ({"parallel": {"tensr": [1, 2]}}, "Did you mean 'tensor'"),
        ({"trials": 0}, "trials is a whole number, at least 1"),
        ({"backend": "modelled", "settings": {}}, "a search serves fleets"),
        ({"folder": "/proc/nowhere"}, "folder=/proc/nowhere: "),
        ({"scenario": "trace"}, "no trace is named"),
    ],
)
def test_what_cannot_be_searched_is_refused(changed, why):
    with pytest.raises((ValueError, FileNotFoundError), match=why):
        tuned(**changed)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty, and holds no search"):
        tuned(folder=tmp_path)


def test_arguments_of_the_command_line(tmp_path, capsys, monkeypatch):
    common = ["+scenario=chat_poisson", "hardware=h100", "model=llama3_8b", "strategy=[paged,static]", "search=[]"]
    common += ["backend.replays=0", "scenario.num_requests=20", "backend.replicas=[1,2]"]
    assert main([*common, "format=json", f"chart={tmp_path / 'c.png'}", f"folder={tmp_path / 'kept'}"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["size"] == 4
    assert (tmp_path / "c.svg").exists()
    monkeypatch.chdir(tmp_path)
    assert main([*common, "trials=9"]) == main([*common, "workers=1"]) == 0
    assert "4 deployments, all that there are" in capsys.readouterr().out
    (own,) = (tmp_path / "results" / "tune").iterdir()
    assert len(pd.read_csv(own / "deployments.csv")) == 4
    assert {*pd.read_csv(own / "judged.csv")["role"]} <= {"best", "front", "default"}
    assert len(list((own / "rows").iterdir())) == 1  # the second time all was there

    def stops(served, deployment, columns, closely=False):
        if deployment["backend.replicas"] == 2:
            raise KeyboardInterrupt
        return Became(deployment, {}, error="no room")

    monkeypatch.setattr("kvbench.api.tuning_task.serve", stops)
    with pytest.raises(KeyboardInterrupt, match="other, and the same command goes on"):
        main([*common, f"folder={tmp_path / 'other'}"])
    assert len(list((tmp_path / "other" / "rows").glob("*.jsonl"))) == 1
    for arguments, why in (
        (common[1:], "scenario=… is missing"),
        ([common[0]], "hardware=… is missing"),
        ([*common, "format=xml"], "unknown format"),
        ([*common, "subject_t=[ttft_p99<=1]"], "Did you mean 'subject_to'"),
        ([*common, "trials=many"], "trials is a whole number"),
    ):
        with pytest.raises(ValueError, match=why):
            main(arguments)
