"""The experiment on quality by hand: contenders, cells and what is kept of them, its table and its sentences."""

import json
import math

import pandas as pd
import pytest

pytest.importorskip("transformers")

from kvbench.studies.quality.cells import (
    COMPLETED,
    CONTINUED,
    NEEDLES,
    STREAMING,
    Cell,
    CellFolder,
    CellResult,
    Contender,
    code_fingerprint,
    contenders,
    described,
)
from kvbench.studies.quality.table import needles_of, sentences_of, table_of
from tests.support.catalogue import strategy


def test_budgets_that_a_strategy_cannot_do_with_are_left_out_and_named():
    rows, refused = contenders({"sinks": strategy("sinks"), "int8": strategy("int8")}, ["static"], [0.001, 0.5], 1000)
    assert [(row.title, row.kind, row.lossless) for row in rows] == [
        ("sinks within 500", "kvbench", False),
        ("int8", "kvbench", False),
        ("transformers static", "transformers", True),
    ]
    assert refused[0].startswith(
        "sinks is left out within 1 tokens: sinks: its budget in tokens is an integer of at least 5"
    )


def test_a_budget_is_one_of_each_sequences_length():
    row = Contender("compressed", strategy("compressed"), 100)
    assert (row.holder_of(1000).kept_fraction, row.holder_of(400).kept_fraction) == (0.1, 0.25)


def cell_of(form=STREAMING, holder="dynamic", num_tokens=10):
    return Cell(Contender("one", holder), form, num_tokens, num_tokens)


def test_cells_are_kept_whole_and_what_cannot_be_read_is_measured_anew(tmp_path):
    kept = CellFolder(tmp_path, {"model": "a"}, reads=True)
    kept.write(cell_of(), {"outcome": COMPLETED, "perplexity": 2.5})
    found = kept.read(cell_of())
    assert (found.figures["perplexity"], found.is_earlier) == (2.5, True)
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text())["about"]["model"] == "a"
    for other in (cell_of(NEEDLES), cell_of(num_tokens=11), cell_of(holder=strategy("dynamic"))):
        assert kept.read(other) is None
    assert CellFolder(tmp_path, {"model": "b"}, reads=True).read(cell_of()) is None
    assert CellFolder(tmp_path, {"model": "a"}, reads=False).read(cell_of()) is None
    path.write_text(path.read_text()[:-20])
    assert kept.read(cell_of()) is None


def test_a_strategy_is_described_by_its_class_and_all_its_parameters():
    assert described(strategy("sinks")) == described(strategy("sinks"))
    assert described(strategy("sinks")) != described(strategy("sinks", num_sinks=5))
    assert described(strategy("int2")) != described(strategy("int2_naive"))
    for name in ("sinks_int4", "adaptive", "paged_hierarchical"):
        assert " at 0x" not in json.dumps(described(strategy(name)))


def test_code_is_told_apart(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.py").write_text("1")
    (tmp_path / "other.py").write_text("1")
    before = code_fingerprint(tmp_path, ["part"])
    (tmp_path / "other.py").write_text("2")
    assert code_fingerprint(tmp_path, ["part"]) == before
    (tmp_path / "part" / "a.py").write_text("2")
    assert code_fingerprint(tmp_path, ["part"]) != before


def test_recalls_by_hand():
    one, other = Contender("one", "dynamic"), Contender("one", "dynamic", 5)
    asked = [[0.1, "first", True], [0.5, "later", False], [0.1, "first", True], [0.5, "later", True]]
    more = [[0.1, "first", True], [0.5, "later", True]]
    found = {
        Cell(one, NEEDLES, 100, 1): CellResult({"outcome": COMPLETED, "asked": asked}, "now"),
        Cell(one, NEEDLES, 200, 1): CellResult({"outcome": COMPLETED, "asked": more}, "now"),
        Cell(other, NEEDLES, 100, 1): CellResult({"outcome": "out_of_memory"}, "now"),
    }
    needles = needles_of(found)
    assert needles[["context_tokens", "depth", "turn", "recall", "num_asked"]].to_numpy().tolist() == [
        [100, 0.1, "first", 1.0, 2],
        [100, 0.5, "later", 0.5, 2],
        [200, 0.1, "first", 1.0, 1],
        [200, 0.5, "later", 1.0, 1],
    ]
    table = table_of([one, other], found, 1000)
    assert (table["recall_first"][0], table["recall_later"][0]) == (1, pytest.approx(2 / 3))
    assert table["recall_first"].isna().tolist() == [False, True]
    assert table["outcome"].tolist() == [COMPLETED, "out_of_memory"]


def test_a_row_by_hand():
    one = Contender("one", strategy("sinks"), 5)
    own = {"outcome": COMPLETED, "agreement": 0.5, "num_resizes": 2, "held_bytes": 10, "peak_bytes": 20}
    forms = {
        STREAMING: own | {"perplexity": 3.0, "kl_nats": -1e-8, "num_attended": 7, "tokens_per_s": 4.0},
        CONTINUED: own | {"perplexity": 2.0, "kl_nats": 0.25, "num_attended": 9, "tokens_per_s": 5.0},
    }
    (row,) = table_of(
        [one], {Cell(one, form, 100, 1): CellResult(own, "now") for form, own in forms.items()}, 30
    ).to_dict("records")
    figures = {name: row[name] for name in row if row[name] == row[name]}
    assert figures == {
        "strategy": "one",
        "kind": "kvbench",
        "lossless": False,
        "reference": False,
        "outcome": COMPLETED,
        "budget_tokens": 5,
        "perplexity": 3,
        "kl_nats": 0,  # float32's rounding
        "agreement": 0.5,
        "perplexity_continued": 2,
        "kl_continued_nats": 0.25,
        "agreement_continued": 0.5,
        "tokens_per_s": 4,
        "held_bytes": 10,
        "peak_bytes": 20,
        "ideal_bytes": 30,
        "num_resizes": 2,
        "num_attended": 7,
        "num_attended_continued": 9,
    }


def told(rows):
    columns = {
        "kind": "kvbench",
        "lossless": False,
        "outcome": COMPLETED,
        "budget_tokens": math.nan,
        "perplexity_continued": math.nan,
        "recall_first": math.nan,
        "recall_later": math.nan,
        "ideal_bytes": 100.0,
        "num_attended": 10.0,
        "num_attended_continued": 20.0,
    }
    return "\n".join(sentences_of(pd.DataFrame([columns | row for row in rows]), 10.0, 12.0))


def test_sentences_by_hand():
    within = {"budget_tokens": 20.0, "peak_bytes": 20.0}
    recalled = {"recall_first": 0.9, "recall_later": 0.8}
    said = told(
        [
            {"strategy": "dynamic", "lossless": True, "perplexity": 10.0, "peak_bytes": 100.0} | recalled,
            {"strategy": "exact", "lossless": True, "perplexity": 9.999999, "peak_bytes": 110.0},
            {"strategy": "int8", "perplexity": 10.01, "peak_bytes": 60.0},
            {"strategy": "int2", "perplexity": 12.0, "peak_bytes": 30.0},
            {"strategy": "int2_naive", "perplexity": 16.0, "peak_bytes": 30.0},
            {"strategy": "sinks", "perplexity": 10.5, "perplexity_continued": 11.0} | within | recalled,
            {"strategy": "recent_window", "perplexity": 18.0} | within,
            {"strategy": "heavy_hitters", "perplexity": 11.0, "perplexity_continued": 10.0} | within,
            {"strategy": "snapkv", "perplexity": 10.5, "recall_first": 1.0, "recall_later": 0.25} | within,
            {"strategy": "static", "outcome": "out_of_memory", "perplexity": math.nan, "peak_bytes": math.nan},
        ]
    )
    assert "perplexity is 10 token by token, 12 after the prefill" in said
    assert (
        "token by token: sinks within 20 (20 % of the tokens' bytes, 10.5), snapkv within 20 (20 % of the tokens' "
        "bytes, 10.5), int8 (60 % of the tokens' bytes, 10.01) and dynamic (100 % of the tokens' bytes, 10)." in said
    )
    assert "Within 20 tokens, a recent window has 1.8 times the full cache's perplexity, one with sinks 1.05" in said
    assert "token by token, heavy_hitters has a perplexity of 11 (it reads 10 tokens at the end), higher than" in said
    assert "after the prefill, heavy_hitters has a perplexity of 10 (it reads 20 tokens at the end), lower than" in said
    assert "token by token, snapkv has a perplexity of 10.5 (it reads 10 tokens at the end), as high as" in said
    assert "snapkv finds 100 % of the needles asked for at once, sinks 90 %" in said
    assert "snapkv finds 25 % of the needles asked for a turn later, sinks 80 %" in said
    assert "keys per channel have a lower perplexity than keys per token (12 and 16)" in said
    assert "int8's perplexity is 1.001 times the full cache's" in said
    assert "The full cache finds 90 % of the needles at once and 80 % a turn later." in said
    assert "From the first turn to the later one snapkv within 20 loses most: 100 %, then 25 %." in said
    assert "static: out of memory; figures of what it did not finish are empty." in said
    poor = {"recall_first": 0.4, "recall_later": 0.4}
    few = told([{"strategy": "dynamic", "lossless": True, "perplexity": 10.0, "peak_bytes": 1.0} | poor])
    assert "so little that needles tell of the model" in few
