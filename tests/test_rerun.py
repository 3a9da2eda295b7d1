"""A folder's configuration is run again as it stands, and what differs is said."""

import json

import pandas as pd
import pytest

import kvbench as kv
from kvbench.results.results import load

TINY = ["model.num_heads=4", "model.num_kv_heads=2", "model.head_dim=8"]
RUN = ["+scenario=./mine.yaml", "strategy=[static,dynamic]", *TINY, "hydra.run.dir=results/one"]


@pytest.fixture
def one(kvbench, tmp_path):
    """A run whose scenario's file is gone since."""

    def run(*more):
        (tmp_path / "mine.yaml").write_text("defaults: [short_chat, _self_]\nappends: [10, 20]\n")
        kvbench(*RUN, *more)
        (tmp_path / "mine.yaml").unlink()
        return tmp_path / "results" / "one"

    return run


def test_a_run_gives_the_same_again(one, kvbench, tmp_path):
    folder = one("hardware=h100", "cache_only=true")
    said = kvbench("rerun", "results/one")
    assert "the same versions, on the same machine" in said
    assert "the same bytes and counts" in said
    (other,) = set((tmp_path / "results").iterdir()) - {folder}
    pd.testing.assert_frame_equal(load(other).summary, load(folder).summary)
    assert load(other).configuration == load(folder).configuration


def test_what_differs_is_said(one, kvbench, tmp_path):
    folder = one("device=cpu", "repetitions=1")
    environment = json.loads((folder / "environment.json").read_text())
    environment["packages"]["torch"] = "0.1"
    (folder / "environment.json").write_text(json.dumps(environment))
    again = kv.rerun(folder)
    assert len(again.made) == 1
    assert again.made[0].startswith("torch: 0.1 there, ")
    assert again.found == []  # of measured times nothing is said
    summary = pd.read_csv(folder / "summary.csv")
    summary.loc[1, "peak_bytes"] += 1
    summary.loc[0, "num_resizes"] += 2
    summary.to_csv(folder / "summary.csv", index=False)
    said = kvbench("rerun", "results/one", status=1)
    assert "static: num_resizes 2 there, 0 here" in said
    assert f"dynamic: peak_bytes {summary.loc[1, 'peak_bytes']:,.10g} there" in said


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("manifest.json", '{"asked": {"again": "the command"}}', "is a sweep's, and its points are not run twice"),
        ("config.yaml", "overrides: []\n", "is no configuration of a run"),
        ("config.yaml", "backend: {}\nmodel: {}\ntrusted: [mine]\n", "to let it, say so: trusted=[mine]"),
        ("config.yaml", "{", "while parsing"),
    ],
)
def test_what_cannot_be_run_again_is_told(one, kvbench, name, text, words):
    (one("backend=counted") / name).write_text(text)
    assert words in kvbench("rerun", "results/one", status=2)
