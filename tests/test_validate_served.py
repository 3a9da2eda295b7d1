"""End-to-end measurements and logs of requests held against simulations of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import kvbench as kv
from kvbench.calibration.validation.points import ROUNDS, all_at_once, region_of
from kvbench.calibration.validation.request_log import read_log
from kvbench.calibration.validation.serving_table import read_serving
from kvbench.calibration.validation.simulated import JudgedTimes, figure_of
from tests.support.measurements import measurement

SYSTEM = {"engine": "vllm", "engine_version": "0.19.0", "model": "meta-llama/Llama-3.1-8B-Instruct", "hardware": "h100"}
PAIR = {"input_tokens": 512, "output_tokens": 16}


def table(folder, *rows, name="serving.csv"):
    path = folder / name
    pd.DataFrame([SYSTEM | PAIR | row for row in rows]).to_csv(path, index=False)
    return path


def points_of(*rows):
    path = "serving.csv"
    return read_serving(path, pd.DataFrame([SYSTEM | PAIR | row for row in rows]))


def test_what_is_reported_of_a_closed_loop():
    (point,), not_told = points_of({"concurrency": 8, "ttft_ms": 200.0, "tpot_ms": 10.0})
    assert not not_told
    assert point.what == "row 1: 512 + 16, 8 at once"
    # 8 × 16 tokens ÷ (0.2 + 0.01 × 15 s)
    assert point.reported == {"ttft": 0.2, "tpot": 0.01, "output_tokens_per_s": pytest.approx(128 / 0.35)}
    assert point.columns.num_clients == 8
    assert (point.columns.num_requests, point.judged) == (8 * ROUNDS, None)
    assert point.limits == (None, None, None)
    assert point.system.engine == "vllm"
    assert point.region == "light load"


def test_static_batches_queues_and_doubts():
    found, not_told = points_of(
        {"concurrency": 4, "max_batch": 4, "output_tokens_per_s": 100.0, "note": "static batch: one batch"},
        {"output_tokens_per_s": 100.0, "note": "all 3,000 requests queued at once; KV fraction 0.95 in many cases"},
        {"concurrency": 64, "ttft_ms": 900.0, "tpot_ms": 10.0, "note": "TTFT doubtful: use TPOT only"},
        {"output_tokens_per_s": 100.0},
        {"concurrency": 4},
    )
    static, queued, doubted = found
    assert (static.limits, static.region) == ((4, 4 * 512, 1.0), "static batch")
    assert queued.limits == (None, None, 0.95)
    assert (queued.columns.num_requests, queued.region, queued.columns.num_clients) == (3000, "queued", None)
    assert list(doubted.reported) == ["tpot"]
    assert doubted.region == "heavy load"
    assert not_told == [
        "row 4 is not told: how requests come is not said: neither a concurrency, nor that all are queued at once",
        "row 5 is not told: it reports neither TTFT nor TPOT nor output tokens a second",
        "TTFT of row 3 is left out, which the note doubts, and what follows from it",
    ]


def test_loops_that_told_an_engines_figures_are_no_judges():
    loop = {"engine": "trtllm", "tensor_parallel": 1, "weights_dtype": "bfloat16", "ttft_ms": 9.0, "tpot_ms": 9.0}
    found, _ = points_of(*[loop | {"concurrency": number} for number in range(2, 42)])
    assert 10 < sum(point.held_out for point in found) < 30
    # A place less than clients, and the tokens of a prompt, of a batch and 1,500 more.
    assert [point.limits for point in found[:3]] == [(n - 1, 512 + n + 1500, None) for n in (2, 3, 4)]
    assert all(point.held_out or not point.judges for point in found)
    others, _ = points_of(*[loop | {"concurrency": number, "tensor_parallel": 2} for number in range(2, 42)])
    assert all(point.held_out for point in others)
    assert 10 < sum(point.judges for point in others) < 30


def test_figures_by_hand():
    times = JudgedTimes(*(np.array(each, float) for each in ([1, 3], [0.1, np.nan], [2, 6], [2, 7], [11, 1])))
    assert figure_of(times, "ttft", None) == 2
    assert figure_of(times, "ttft_p50", None) == 2
    assert figure_of(times, "tpot", None) == 0.1
    assert figure_of(times, "latency_p99", None) == pytest.approx(5.96)
    assert figure_of(times, "last_finish", None) == 7
    assert figure_of(times, "output_tokens_per_s", None) == pytest.approx(12 / 7)
    assert figure_of(times, "requests_per_s", None) == pytest.approx(2 / 7)
    assert figure_of(times, "output_tokens_per_s", 8) == pytest.approx(8 * 6 / 4)


def test_all_requests_of_a_closed_loop_count_from_those_that_come_together(tmp_path):
    assert region_of(all_at_once(512, 16, 3)) == "queued"
    loop, step = {"concurrency": 4, "ttft_ms": 9.0, "tpot_ms": 9.0}, {"engine.max_num_batched_tokens": 512}
    rows = [
        kv.validate(table(tmp_path, each), replays=0, settings=step).rows for each in (loop, loop | {"concurrency": 1})
    ]
    ours, alone = (each.set_index("kind")["ours"]["ttft"] for each in rows)
    # A step has room for one prompt: of the first four each waits for one and a half in the mean, a tenth of all.
    assert alone * (1 + 1.5 / ROUNDS) < ours < 4 * alone


@pytest.fixture
def replayed(tmp_path):
    """A log whose times are those of its own simulation, and its folder."""
    path = tmp_path / "log_h100.csv"
    rows = {"request_id": ["a", "b", "c"], "arrival_s": [0.0, 0.05, 0.3], "input_tokens": [900, 4000, 2000]}
    rows |= {"output_tokens": [30, 1, 12], "ttft_s": [1.0] * 3, "tpot_s": [1.0] * 3, "latency_s": [1.0] * 3}
    frame = pd.DataFrame(rows)
    frame.to_csv(path, index=False)
    found = kv.validate(path, model="llama3_8b", engine="vllm").rows
    for measure, column in (("ttft", "ttft_s"), ("latency", "latency_s")):
        frame[column] = found.loc[found["kind"] == f"{measure}_of_request", "ours"].to_numpy()
    frame["tpot_s"] = [*found.loc[found["kind"] == "tpot_of_request", "ours"], 0.0]
    frame["tpot_s"] = frame["tpot_s"].iloc[[0, 2, 1]].to_numpy()
    frame.to_csv(path, index=False)
    return path


def test_a_log_of_a_simulation_is_met_by_it(replayed):
    found = kv.validate(replayed, model="llama3_8b", engine="vllm")
    assert set(found.rows["kind"]) == {
        *("last_finish", "ttft_p50", "tpot_p50", "latency_p50"),
        *("ttft_of_request", "tpot_of_request", "latency_of_request"),
    }
    assert found.errors.number == 4 + 3 + 2 + 3
    assert abs(found.errors.worst) < 1e-6
    assert found.rows["group"].unique().tolist() == ["Llama-3.1-8B, h100, vllm, tp1, bfloat16"]


def test_requests_without_times_are_replayed_too(replayed):
    log = pd.read_csv(replayed)
    log[["request_id", "arrival_s", "input_tokens", "output_tokens"]].to_csv(
        replayed.with_name("log_h100_inputs.csv"), index=False
    )
    log.iloc[[0, 2]].to_csv(replayed, index=False)
    found = kv.validate(replayed, model="llama3_8b", engine="vllm")
    assert "3 requests, all of log_h100_inputs.csv" in found.files[0].about
    assert found.errors.number == 4 + 2 + 2 + 2
    assert abs(found.errors.worst) < 1e-6
    alone = replayed.with_name("alone_h100.csv")
    alone.write_text(replayed.read_text())
    assert abs(kv.validate(alone, model="llama3_8b", engine="vllm").errors.worst) > 1e-3
    named = kv.validate(alone, model="llama3_8b", engine="vllm", inputs=replayed.with_name("log_h100_inputs.csv"))
    assert abs(named.errors.worst) < 1e-6


def test_who_was_preempted_finds_its_own_blocks_where_the_engine_keeps_them(tmp_path):
    path = tmp_path / "log_h100.csv"
    rows = {
        "request_id": ["a", "b"],
        "arrival_s": [0.0, 0.0],
        "input_tokens": [1_000, 900],
        "output_tokens": [300, 300],
    }
    pd.DataFrame(rows | {"ttft_s": [1.0] * 2, "tpot_s": [1.0] * 2, "latency_s": [1.0] * 2}).to_csv(path, index=False)

    def last_s(**settings):
        engine = kv.VLLM(max_model_len=2_048, num_gpu_blocks=130, **settings)
        found = kv.validate(path, model="llama3_8b", engine=engine, replays=0).rows
        return found.loc[found["kind"] == "last_finish", "ours"].item()

    # Of 129 blocks two requests that end at 1,299 and 1,199 tokens take 157: the second gives way.
    assert last_s() < last_s(enable_prefix_caching=False)


def test_what_a_log_lacks_is_said_beside_it(replayed):
    with pytest.raises(ValueError, match="of which model it is, is not said"):
        kv.validate(replayed, engine="vllm")
    with pytest.raises(ValueError, match="which engine served is not said: give engine=NAME, one of ideal, sglang"):
        kv.validate(replayed, model="llama3_8b")
    beside = replayed.with_suffix(".yaml")
    beside.write_text("model: llama3_8b\nengine: vllm\nengine.max_num_seqs: 1\n", encoding="utf-8")
    assert kv.validate(replayed).rows["ours"].max() > 0
    beside.write_text("model: llama3_8b\nengine: vllm\nengine.max_num_seq: 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="Did you mean 'max_num_seqs'"):
        kv.validate(replayed)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ttft_s": 0.0}, "row 1: ttft_s is a number above 0, got 0.0"),
        ({"input_tokens": 1.5}, "row 1: input_tokens is a whole number"),
        ({"output_tokens": 0}, "output_tokens is at least 1, got 0"),
        ({"arrival_s": "soon"}, "arrival_s is a number of at least 0 in each row"),
        ({"request_id": "b"}, "a request_id stands twice"),
    ],
)
def test_a_broken_log_is_one_message(changed, words):
    row = {"request_id": "a", "arrival_s": 0.0, "ttft_s": 1.0, "tpot_s": 0.1, "latency_s": 2.0} | PAIR
    with pytest.raises(ValueError, match=words):
        read_log("log.csv", pd.DataFrame([row | changed, row | {"request_id": "b"}]))


def test_inputs_that_lack_a_request_are_refused():
    row = {"request_id": "a", "arrival_s": 0.0, "ttft_s": 1.0} | PAIR
    with pytest.raises(ValueError, match=r"inputs.csv: it lacks requests of log.csv, such as 'a'"):
        read_log(Path("log.csv"), pd.DataFrame([row]), pd.DataFrame([row | {"request_id": "b"}]), Path("inputs.csv"))


def test_rows_of_systems_that_are_not_known_are_named(tmp_path):
    loop = {"concurrency": 2, "ttft_ms": 50.0, "tpot_ms": 10.0}
    path = table(
        tmp_path,
        loop,
        loop | {"model": "acme/Anvil-9B"},
        loop | {"engine": "lmdeploy"},
        loop | {"hardware": "h99"},
        loop | {"weights_dtype": "int3"},
        loop | {"tensor_parallel": 2, "weights_dtype": "fp8", "kv_dtype": "fp8"},
        loop | {"model": "openai/gpt-oss-20b", "weights_dtype": "w4a16_mxfp4"},
    )
    found = kv.validate(path)
    assert len(found.rows) == 9
    assert found.rows["group"].unique().tolist() == [
        "Llama-3.1-8B, h100, vllm, tp1, bfloat16",
        "Llama-3.1-8B, h100, vllm, tp2, fp8",
        "gpt-oss-20B, h100, vllm, tp1, w4a16_mxfp4",
    ]
    assert [each.partition(" is not told: ")[0] for each in found.not_told] == [
        f"serving.csv: row {n}: 512 + 16, 2 at once" for n in (2, 3, 4, 5)
    ]
    told = "\n".join(found.not_told)
    for words in (
        "'acme/Anvil-9B' is not at hand",
        "unknown engine 'lmdeploy'",
        "unknown hardware 'h99'",
        "weights of 'int3'",
    ):
        assert words in told
    assert "4 not told" in found.summary
    assert found.chart.figure().axes


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ttft_ms": -1.0}, "row 1: ttft_ms is a number above 0, got -1.0"),
        ({"concurrency": 1.5}, "row 1: concurrency is a whole number"),
        ({"input_tokens": np.nan}, "row 1: input_tokens is a whole number"),
    ],
)
def test_a_broken_table_is_one_message(tmp_path, changed, words):
    with pytest.raises(ValueError, match=words):
        kv.validate(table(tmp_path, changed))


def test_the_published_tables():
    found = kv.validate(measurement("serving.csv"), replays=0)
    assert found.rows["what"].nunique() == 90
    (left_out,) = found.not_told
    assert left_out.startswith("serving.csv: TTFT of rows 27, 61, 62, 63, 64, 65, 66 is left out")
    assert {"ttft", "tpot", "output_tokens_per_s"} == set(found.rows["kind"])
    log = kv.validate(measurement("requests_rtx_4090.csv"), model="llama3_8b", engine="vllm", replays=0)
    assert (log.rows["kind"] == "ttft_of_request").sum() == 150
    (last,) = log.rows.loc[log.rows["kind"] == "last_finish", "published"]
    assert last == pytest.approx(97.28, abs=0.01)


def test_intervals_come_from_replays_with_other_times(replayed, tmp_path):
    given = {"model": "llama3_8b", "engine": "vllm"}
    rows = kv.validate(replayed, **given).rows
    assert ((rows["low"] <= rows["ours"]) & (rows["ours"] <= rows["high"])).all()
    assert (rows["high"] / rows["low"] > 1.03).all()
    few = kv.validate(replayed, replays=2, **given)
    assert (few.rows["ours"] == rows["ours"]).all()
    assert (few.rows["high"] < rows["high"]).any()
    none = kv.validate(replayed, replays=0, **given)
    assert none.rows["low"].isna().all()
    assert "of those held out within ours" not in none.summary
    assert few.summary.partition("of those held out within ours")[1]
    with pytest.raises(ValueError, match="replays is an integer of at least 0"):
        kv.validate(replayed, replays=-1, **given)
