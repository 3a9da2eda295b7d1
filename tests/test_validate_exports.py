"""What benchmarks of engines write, in small files of their forms, read as runs and held against simulations."""

import json
import math

import numpy as np
import pytest

import kvbench as kv
from kvbench.calibration.validation.exports.export import Export, engine_of
from kvbench.calibration.validation.exports.runs import runs_of
from kvbench.calibration.validation.recognised import AIPERF, AIPERF_TABLE, BENCH, GUIDELLM, form_of

TIMES = {"mean_ttft_ms": 50.0, "median_ttft_ms": 45.0, "p99_ttft_ms": 90.0, "mean_tpot_ms": 8.0, "median_tpot_ms": 7.9}
VLLM = {
    **{"date": "20260101-000000", "endpoint_type": "vllm", "backend": "vllm", "label": None},
    **{"model_id": "meta-llama/Llama-3.1-8B-Instruct", "tokenizer_id": "meta-llama/Llama-3.1-8B-Instruct"},
    **{"num_prompts": 4, "request_rate": "inf", "burstiness": 1.0, "max_concurrency": 2, "duration": 2.0},
    **{"completed": 4, "failed": 0, "total_input_tokens": 2000, "total_output_tokens": 80, "request_throughput": 2.0},
    **{"output_throughput": 40.0, "total_token_throughput": 1040.0, "mean_itl_ms": 8.0, "p99_itl_ms": 20.0, **TIMES},
}
DETAILS = {
    "input_lens": [600, 400, 600, 400],
    "output_lens": [30, 10, 30, 0],
    "ttfts": [0.05, 0.04, 0.05, 0.0],
    "itls": [[0.01] * 29, [0.01] * 9, [0.01] * 29, []],
    "start_times": [100.0, 100.5, 100.2, 101.0],
    "generated_texts": ["", "", "", ""],
    "errors": ["", "", "", "refused"],
}
SGLANG = {
    **{"backend": "sglang-oai", "dataset_name": "random", "request_rate": math.inf, "max_concurrency": 2},
    **{"sharegpt_output_len": None, "random_input_len": 500, "random_output_len": 20, "random_range_ratio": 1.0},
    **{"duration": 2.0, "completed": 4, "total_input_tokens": 2000, "total_output_tokens": 80},
    **{"request_throughput": 2.0, "input_throughput": 1000.0, "output_throughput": 40.0, "accept_length": None},
    **{"mean_e2e_latency_ms": 210.0, "median_e2e_latency_ms": 200.0, "concurrency": 1.9, **TIMES},
}


def summary(mean, p50):
    return {"successful": {"mean": mean, "median": p50, "count": 3, "percentiles": {"p50": p50, "p99": 2 * p50}}}


def guidellm(kind, **strategy):
    requests = [{"prompt_tokens": 500, "output_tokens": 20}, {"prompt_tokens": 400, "output_tokens": 10}]
    return {
        "config": {
            "strategy": {"type_": kind, **strategy},
            "backend": {"type_": "openai_http", "model": "Llama-3.1-8B"},
        },
        "metrics": {
            "request_totals": {"successful": 2, "errored": 0, "incomplete": 0, "total": 2},
            "request_latency": summary(0.21, 0.2),
            "prompt_token_count": summary(450, 450),
            "output_token_count": summary(15, 15),
            "time_to_first_token_ms": summary(50.0, 45.0),
            "time_per_output_token_ms": summary(11.0, 11.0),
            "inter_token_latency_ms": summary(8.0, 7.9),
            "output_tokens_per_second": summary(40.0, 40.0),
        },
        "requests": {"successful": requests, "errored": [], "incomplete": []},
    }


AIPERF_JSON = {
    "request_throughput": {"unit": "requests/sec", "avg": 2.0},
    "request_latency": {"unit": "ms", "avg": 210.0, "p50": 200.0, "p99": 300.0, "std": 1.0},
    "request_count": {"unit": "requests", "avg": 40.0},
    "time_to_first_token": {"unit": "ms", "avg": 50.0, "p50": 45.0, "p99": 90.0},
    "inter_token_latency": {"unit": "ms", "avg": 8.0, "p50": 7.9},
    "output_token_throughput": {"unit": "tokens/sec", "avg": 40.0},
    "output_sequence_length": {"unit": "tokens", "avg": 20.2},
    "input_sequence_length": {"unit": "tokens", "avg": 500.0},
    "input_config": {"endpoint": {"model_names": ["meta-llama/Llama-3.1-8B-Instruct"]}, "loadgen": {"concurrency": 2}},
    "was_cancelled": False,
}
GENAI_PERF = {
    **{key: value for key, value in AIPERF_JSON.items() if key != "input_config"},
    "input_config": {"model_names": ["Llama-3.1-8B"], "perf_analyzer": {"stimulus": {"concurrency": 2}}},
}
AIPERF_PHASES = AIPERF_JSON | {
    "schema_version": "1.5",
    "input_config": {
        "models": {"strategy": "round_robin", "items": [{"name": "meta-llama/Llama-3.1-8B-Instruct"}]},
        "endpoint": {"urls": ["http://localhost:8000"], "type": "chat"},
        "phases": [
            {"name": "warmup", "kind": "warmup", "type": "concurrency", "concurrency": 9, "requests": 9},
            {"name": "profiling", "kind": "profiling", "type": "concurrency", "concurrency": 2, "requests": 40},
        ],
    },
}
AIPERF_CSV = """Metric,avg,min,max,p50,p90,p95,p99
Input Sequence Length (tokens),500.00,490.00,510.00,500.00,505.00,506.00,509.00
Inter Token Latency (ms),8.00,7.00,9.00,7.90,8.50,8.60,8.90
Output Sequence Length (tokens),20.20,20.00,21.00,20.00,21.00,21.00,21.00
Request Latency (ms),"1,210.00",200.00,300.00,200.00,250.00,260.00,300.00
Time to First Token (ms),50.00,40.00,90.00,45.00,80.00,85.00,90.00

Metric,Value
Output Token Throughput (tokens/sec),40.00
Request Count,40.00
Request Throughput (requests/sec),2.00
"""
FORMS = {
    "vllm.json": (BENCH, json.dumps(VLLM)),
    "detailed.json": (BENCH, json.dumps(VLLM | DETAILS | {"max_concurrency": None, "request_rate": 4.0})),
    "sglang.jsonl": (
        BENCH,
        f"{json.dumps(SGLANG)}\n{json.dumps(SGLANG | {'request_rate': 4.0, 'max_concurrency': None})}\n",
    ),
    "benchmarks.json": (
        GUIDELLM,
        json.dumps({"benchmarks": [guidellm("concurrent", streams=2), guidellm("poisson", rate=4.0)]}),
    ),
    "profile_export_aiperf.json": (AIPERF, json.dumps(AIPERF_JSON)),
    "profile_export_genai_perf.json": (AIPERF, json.dumps(GENAI_PERF)),
    "profile_export_phases.json": (AIPERF, json.dumps(AIPERF_PHASES)),
    "profile_export_aiperf.csv": (AIPERF_TABLE, AIPERF_CSV),
}


@pytest.fixture
def written(tmp_path):
    for name, (_, text) in FORMS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", FORMS)
def test_a_file_is_known_by_what_is_in_it(written, name):
    renamed = (written / name).rename(written / "file.txt")
    assert form_of(renamed) == FORMS[name][0]


def runs(written, name):
    return runs_of(written / name, FORMS[name][0])


def test_a_run_of_vllm(written):
    (run,) = runs(written, "vllm.json")
    assert (run.model, run.engine, run.number) == (VLLM["model_id"], "vllm", 4)
    assert (run.prompts.tolist(), run.outputs.tolist()) == ([500], [20])
    assert run.reported == pytest.approx(
        {
            **{"ttft": 0.05, "ttft_p50": 0.045, "ttft_p99": 0.09, "tpot": 0.008, "tpot_p50": 0.0079},
            **{"output_tokens_per_s": 40.0, "requests_per_s": 2.0},
        }
    )
    assert "gaps between single tokens (ITL) are not told" in run.left_out
    point = run.point
    assert point.what == "run 1: 4 requests, 2 at once"
    assert (point.columns.num_clients, point.judged) == (2, None)


def test_details_are_replayed_in_the_order_of_sending(written):
    (run,) = runs(written, "detailed.json")
    assert run.left_out[-1] == "1 requests that failed are left out"
    point = run.point
    assert point.columns.arrival_ns.tolist() == [0, 200_000_000, 500_000_000]
    assert point.columns.num_output_tokens.tolist() == [30, 30, 10]
    assert point.by_request["tpot"] == pytest.approx([0.01] * 3)
    assert point.what.endswith("as they were sent")


def test_runs_of_sglang(written):
    closed, open_loop = runs(written, "sglang.jsonl")
    assert closed.engine == "sglang"
    assert closed.reported["latency"] == 0.21
    assert closed.point.columns.num_clients == 2
    assert open_loop.point.columns.num_clients is None
    arrivals = open_loop.point.columns.arrival_ns
    assert arrivals.size == 4
    assert (np.diff(arrivals) > 0).all()
    assert open_loop.point.columns.arrival_ns.tolist() == arrivals.tolist()


def test_a_bound_that_does_not_bind_leaves_the_rate():
    lengths = {"prompts": np.array([500]), "outputs": np.array([20]), "number": 8, "reported": {"latency": 0.2}}
    assert Export(what="run", rate=4.0, concurrency=2, **lengths).point.columns.num_clients is None
    assert Export(what="run", rate=40.0, concurrency=2, **lengths).point.columns.num_clients == 2
    even = Export(what="run", rate=4.0, burstiness=math.inf, **lengths).point.columns.arrival_ns
    assert np.diff(even).tolist() == [250_000_000] * 7


def test_benchmarks_of_guidellm(written):
    concurrent, poisson = runs(written, "benchmarks.json")
    assert concurrent.prompts.tolist() == [500, 400]
    assert concurrent.reported["tpot"] == pytest.approx(0.008)
    assert concurrent.reported["latency"] == pytest.approx(0.21)
    assert concurrent.point.what == "benchmark 1 (concurrent): 2 requests, 2 at once"
    assert poisson.point.what == "benchmark 2 (poisson): 2 requests, 4 a second"
    assert concurrent.model == "Llama-3.1-8B"


def test_guidellm_may_keep_a_sample_of_many_requests(tmp_path):
    report = guidellm("concurrent", streams=2)
    report["metrics"]["request_totals"]["successful"] = 7
    (tmp_path / "sample.json").write_text(json.dumps({"benchmarks": [report]}), encoding="utf-8")
    (run,) = runs_of(tmp_path / "sample.json", GUIDELLM)
    assert run.point.columns.num_prompt_tokens.tolist() == [500, 400, 500, 400, 500, 400, 500]


@pytest.mark.parametrize(
    ("type_", "said", "burstiness"),
    [("constant", {}, math.inf), ("poisson", {}, 1.0), ("gamma", {"smoothness": 4.0}, 4.0)],
)
def test_a_phase_of_aiperf_says_how_requests_come(tmp_path, type_, said, burstiness):
    phases = [{"name": "load", "kind": "profiling", "type": type_, "rate": 5.0, "concurrency": None, **said}]
    config = AIPERF_PHASES["input_config"] | {"phases": phases}
    (tmp_path / "run.json").write_text(json.dumps(AIPERF_PHASES | {"input_config": config}), encoding="utf-8")
    (run,) = runs_of(tmp_path / "run.json", AIPERF)
    assert (run.rate, run.concurrency, run.burstiness) == (5.0, None, burstiness)
    config["phases"] = phases * 2
    (tmp_path / "several.json").write_text(json.dumps(AIPERF_PHASES | {"input_config": config}), encoding="utf-8")
    (several,) = runs_of(tmp_path / "several.json", AIPERF)
    assert (several.rate, several.concurrency) == (None, None)


@pytest.mark.parametrize(
    "name", ["profile_export_aiperf.json", "profile_export_genai_perf.json", "profile_export_phases.json"]
)
def test_summaries_of_aiperf(written, name):
    (run,) = runs(written, name)
    assert (run.number, run.concurrency, run.outputs.tolist()) == (40, 2, [20])
    assert "Llama-3.1-8B" in run.model
    assert run.reported["ttft_p99"] == pytest.approx(0.09)
    assert run.reported["output_tokens_per_s"] == 40.0


def test_a_table_of_aiperf_lacks_how_requests_came(written):
    (run,) = runs(written, "profile_export_aiperf.csv")
    assert run.reported["latency"] == pytest.approx(1.21)
    with pytest.raises(ValueError, match=r"how requests came is not said: give concurrency=NUMBER, or rate="):
        kv.validate(written / "profile_export_aiperf.csv", hardware="h100", model="llama3_8b", engine="vllm")
    assert run.said(3, None).point.columns.num_clients == 3


@pytest.mark.parametrize("name", FORMS)
def test_each_is_one_command(written, name):
    given = {"hardware": "h100", "engine": "vllm", "model": "llama3_8b", "concurrency": 2}
    found = kv.validate(written / name, **given)
    assert found.errors.number >= 5
    assert np.isfinite(found.rows["error"]).all()
    assert found.rows["group"].unique().tolist() == ["Llama-3.1-8B, h100, vllm, tp1, bfloat16"]
    assert f"{len(found.rows):,} rows: MAPE" in found.text.splitlines()[-1]


def test_what_served_is_the_files_where_it_says_it(written):
    with pytest.raises(ValueError, match="of which hardware it is, is not said"):
        kv.validate(written / "vllm.json")
    assert kv.validate(written / "vllm.json", hardware="h100").errors.number == 7
    named = (written / "profile_export_aiperf.json").rename(written / "run_l40s_sglang.json")
    assert set(kv.validate(named, model="llama3_8b", replays=0).rows["group"]) == {
        "Llama-3.1-8B, l40s, sglang, tp1, bfloat16"
    }
    assert [engine_of(word) for word in ("vllm", "sglang-oai-chat", "trt", "openai", None)] == [
        "vllm",
        "sglang",
        "trtllm",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"completed": "x"}, "completed is a number of at least 0, got 'x'"),
        ({"completed": 0}, "it reports no request that ended"),
        ({"request_rate": 0}, "request_rate is a number above 0, or inf, got 0"),
        ({"input_lens": [1, 2], "output_lens": [1], "ttfts": [1, 2]}, "lists of requests are of one length"),
        ({"input_lens": ["x"], "output_lens": [1], "ttfts": [1]}, "input_lens is a list of numbers"),
        ({"total_output_tokens": 0}, "without a token of prompt or answer"),
    ],
)
def test_a_broken_run_is_one_message(tmp_path, changed, words):
    (tmp_path / "run.json").write_text(json.dumps(VLLM | changed), encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        kv.validate(tmp_path / "run.json", hardware="h100")


def test_other_broken_files_are_one_message(tmp_path):
    path = tmp_path / "run.json"
    for text, words in [
        (json.dumps(VLLM) + "\n{", "line 2: no JSON"),
        (json.dumps(VLLM) + "\n{}", "document 2: it is no run as that before it"),
        (json.dumps({"benchmarks": [{"metrics": {}}]}), "neither its requests nor their mean lengths are there"),
        (json.dumps({"benchmarks": [{"metrics": 3}]}), "another shape than is read here"),
        (json.dumps(AIPERF_JSON | {"input_sequence_length": {}}), "it has no input_sequence_length"),
        (json.dumps(AIPERF_JSON | {"request_latency": {"unit": "days", "avg": 1}}), "request_latency is in s, sec"),
    ]:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=words):
            kv.validate(path, hardware="h100", model="llama3_8b", engine="vllm")
