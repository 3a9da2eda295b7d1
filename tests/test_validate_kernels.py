"""Measured kernels held against the model of time: rows, sums, conditions, the chart and what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import kvbench as kv
from kvbench.calibration.tables import is_held_out, read_kernels
from kvbench.calibration.validation.conditions import conditions_of, failures
from kvbench.calibration.validation.kernels import judged_kernels
from kvbench.calibration.validation.rows import errors_of, held_rows, share_interval
from kvbench.cli.validate import main
from kvbench.configuration.catalogue import own_node
from kvbench.configuration.model import hardware_of
from kvbench.timing.doubt import doubt_of
from kvbench.timing.kernels import Kernels, kernels_of
from kvbench.timing.shapes import AttentionShape
from tests.support.measurements import measurement

H100 = hardware_of({"hardware": own_node("hardware", "h100")})
OURS = Kernels(H100)
SHAPE = AttentionShape(32, 8, 128, 128, "bfloat16", "bfloat16")


def gemm(m, seconds, **changed):
    return {"op": "gemm", "dtype": "bfloat16", "m": m, "n": 4096, "k": 4096, "seconds": seconds} | changed


def attention(op, batch, new, context, seconds, **changed):
    shape = {"batch": batch, "new_tokens": new, "context_tokens": context, "window": 0}
    heads = {"num_heads": 32, "num_kv_heads": 8, "head_dim": 128, "dtype": "bfloat16", "kv_dtype": "bfloat16"}
    return {"op": op, **shape, **heads, "seconds": seconds} | changed


def table(folder, *rows, name="h100_vllm.csv"):
    path = folder / name
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_a_row_is_its_time_beside_ours(tmp_path):
    ours = float(OURS.product_s(16, 4096, 4096, "bfloat16"))
    found = kv.validate(table(tmp_path, gemm(16, ours / 1.2), gemm(1024, 1.0, dtype="float16")))
    first, second = found.rows.to_dict("records")
    assert (first["what"], first["kind"], first["group"], first["region"]) == (
        "row 1: (16, 4,096) by (4,096, 4,096)",
        "gemm",
        "bfloat16",
        "small batch",
    )
    assert first["error"] == pytest.approx(0.2)
    assert second["region"] == "large batch"
    assert second["ours"] == OURS.product_s(1024, 4096, 4096, "float16")
    assert found.errors.worst == pytest.approx(second["error"])


def test_attention_of_several_sequences_has_one_floor(tmp_path):
    windowed = SHAPE._replace(window=10)
    ours = [OURS.prefill_s(512, 0, SHAPE, 4), OURS.decode_s(400, 4, SHAPE), OURS.decode_s(40, 4, windowed)]
    rows = [
        attention("prefill_attention", 4, 512, 0, 1.0),
        attention("decode_attention", 4, 1, 99, 1.0),
        attention("decode_attention", 4, 1, 99, 1.0, window=10),
    ]
    found = kv.validate(table(tmp_path, *rows)).rows["ours"]
    assert found.tolist() == pytest.approx(ours)
    assert ours[0] < 4 * OURS.prefill_s(512, 0, SHAPE) - 2 * OURS.prefill_s(0, 0, SHAPE)


def test_a_chunk_beside_a_step_is_the_sum_of_both(tmp_path):
    sizes = {"prefill_tokens": 512, "prefill_context_tokens": 64, "decode_sequences": 4, "decode_context_tokens": 99}
    heads = {"num_heads": 32, "num_kv_heads": 8, "head_dim": 128, "dtype": "bfloat16"}
    path = table(tmp_path, {**sizes, **heads, "seconds": 1.0}, name="mine.csv")
    fixed, token = OURS.mixed_terms(4, SHAPE)
    ours = OURS.prefill_s(512, 64, SHAPE) + fixed + 400 * token
    assert kv.validate(path, hardware="h100").rows["ours"].item() == pytest.approx(float(ours))


def test_what_says_nothing_of_kernels_is_named(tmp_path):
    rows = [
        gemm(16, 1.0),
        gemm(16, 1.0, dtype="int3"),
        {"op": "all_reduce", "dtype": "bfloat16", "num_gpus": 2, "bytes": 8, "seconds": 1.0, "detail": "vllm_eager"},
        attention("decode_attention", 4, 1, 99, 1.0, kv_dtype="int3"),
    ]
    found = kv.validate(table(tmp_path, *rows))
    assert len(found.rows) == 1
    assert [each.partition(" are not told")[0] for each in found.not_told] == [
        "h100_vllm.csv: 1 rows of gemm",
        "h100_vllm.csv: 1 rows of all_reduce (vllm_eager)",
        "h100_vllm.csv: 1 rows of decode_attention",
    ]
    assert "operands of int3 are not modelled" in found.text
    assert found.text.splitlines()[-1].startswith("1 rows: MAPE ")
    assert found.text.splitlines()[-1].endswith("; 3 not told")
    assert kv.validate(table(tmp_path, rows[1])).text.splitlines()[-1] == "0 rows; 1 not told"


def test_rows_that_fitted_are_told_apart(tmp_path):
    measured = read_kernels(table(tmp_path, *[gemm(m, 1.0) for m in range(1, 60)]))
    rows = judged_kernels(measured, OURS).rows
    assert rows["held_out"].tolist() == is_held_out(measured).tolist()
    assert rows["held_out"].nunique() == 2
    assert judged_kernels(measured, Kernels(replace(H100, kernels=None))).rows["held_out"].all()


def rows_of(kind, errors, low=math.nan, high=math.nan):
    names = [f"{kind}{number}" for number in range(len(errors))]
    ours = 1 + np.asarray(errors)
    return held_rows(
        what=names,
        kind=kind,
        group="fp8, cache fp8",
        region="long context",
        unit="s",
        published=1.0,
        ours=ours,
        held_out=[number == 0 for number in range(len(errors))],
        low=low,
        high=high,
    )


def test_sums_by_hand():
    found = errors_of(rows_of("gemm", [0.1, -0.3, 0.2], low=[0.9, 0.5, 1.1], high=[1.2, 0.9, 1.3]))
    assert (found.number, found.worst) == (3, pytest.approx(-0.3))
    assert (found.mape, found.bias, found.median) == pytest.approx((0.2, 0.0, 0.2))
    assert found.coverage == pytest.approx(1 / 3)
    low, high = share_interval(9, 10)  # by hand: (0.9 + 0.1353 ± 1.645 × √(0.009 + 0.00676)) ÷ 1.2706
    assert (low, high) == pytest.approx((0.652, 0.977), abs=1e-3)


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        ("mape>0.1", 1),
        ("mape > 50%", 0),
        ("gemm.mape>=0.2", 1),
        ("moe.mape>0.1", 0),
        ("gemm.held_out.mape>0.11", 0),
        ("held_out.median<5%, worst>0.2,bias>0.01", 2),
        ("gemm.long_context.fp8.bias>0.3", 0),
    ],
)
def test_a_condition_holds_or_not(text, failed):
    rows = pd.concat([rows_of("gemm", [0.1, -0.3]), rows_of("moe", [0.05])])
    assert len(failures(conditions_of(text), rows)) == failed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mape", "a measure, a comparison and a number, such as fail_if="),
        ("__import__('os')>1", "unknown measure"),
        ("mapes>0.1", "Did you mean 'mape'"),
        ("gem.mape>0.1", "Did you mean 'gemm'"),
        ("coverage<0.8", "no row has an interval"),
        ("gemm.moe.mape>0", "no row is of that"),
    ],
)
def test_a_condition_that_cannot_be_judged_is_refused(text, words):
    rows = pd.concat([rows_of("gemm", [0.1]), rows_of("moe", [0.05])])
    with pytest.raises(ValueError, match=words):
        failures(conditions_of(text), rows)


def test_the_command_fails_by_a_condition_and_writes_what_it_found(tmp_path, capsys):
    path = table(tmp_path, gemm(16, 1e-6), gemm(512, 1e-6))
    assert main([str(path), "fail_if=mape>0.1", f"out={tmp_path / 'found'}"]) == 1
    printed = capsys.readouterr()
    assert "fails by mape>0.1: it is " in printed.err
    assert printed.out.splitlines()[-1].startswith("2 rows: MAPE ")
    assert max(map(len, printed.out.splitlines()[:-1])) <= 120
    assert {each.name for each in (tmp_path / "found").iterdir()} == {
        "validation.csv",
        "validation.png",
        "validation.svg",
    }
    assert len(pd.read_csv(tmp_path / "found" / "validation.csv")) == 2
    assert main([str(path), "format=json", "fail_if=mape<0.1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["kind"] for row in found["rows"]] == ["gemm", "gemm"]
    assert found["rows"][0]["low"] < found["rows"][0]["ours"]
    assert found["groups"][0]["number"] == 2
    assert found["sentence"].startswith("2 rows")


def test_which_machine_is_said_beside_or_by_the_name_or_by_the_caller(tmp_path):
    path = table(tmp_path, gemm(16, 1.0), name="mine.csv")
    with pytest.raises(ValueError, match=r"of which hardware it is, is not said: give hardware=NAME"):
        kv.validate(path)
    (tmp_path / "mine.yaml").write_text("hardware: a100_80\n", encoding="utf-8")
    assert "A100" in kv.validate(path).files[0].about
    assert "H100" in kv.validate(path, hardware="h100").files[0].about
    with pytest.raises(ValueError, match="unknown hardware 'h10'"):
        kv.validate(path, hardware="h10")
    for text, words in [
        ("hardwares: h100", "Did you mean 'hardware'"),
        ("hardware: {name: x}", "hardware is a name or a number"),
        ("- h100", "each a key with a value"),
    ]:
        (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=words):
            kv.validate(path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("h100_vllm.parquet", "PAR1", "it cannot be read"),
        ("h100_vllm.csv", "", "none of the forms that are read: .*; it has nothing"),
        ("h100_vllm.json", '{"a": 1}', "none of the forms that are read: .*; it has a"),
        ("h100_vllm.json", '{"a": ', "line 1: no JSON"),
        ("h100_vllm.csv", "op,dtype,seconds\n", "has no rows"),
        ("h100_vllm.csv", "op,dtype,m,n,k,seconds\ngemm,bfloat16,1,1,1,0\n", "row 1: seconds is above 0, got 0"),
        (
            "h100_vllm.csv",
            "prefill_tokens,decode_sequences\n1,2\n",
            "a table of calls of attention has prefill_context",
        ),
    ],
)
def test_a_broken_file_is_one_message(tmp_path, name, text, words):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        kv.validate(tmp_path / name)


def test_nought_and_negative_times_of_mixed_calls_are_refused(tmp_path):
    head = (
        "prefill_tokens,prefill_context_tokens,decode_sequences,decode_context_tokens,num_heads,num_kv_heads,head_dim"
    )
    path = tmp_path / "h100_vllm.csv"
    for seconds in ("-1", "0", "x", ""):
        path.write_text(f"{head},dtype,seconds\n1,0,1,1,8,8,64,bfloat16,{seconds}\n", encoding="utf-8")
        with pytest.raises(ValueError, match="row 1: seconds is a number above 0, got"):
            kv.validate(path)


def test_several_files_and_lines_are_one_result(tmp_path):
    paths = [table(tmp_path, gemm(16, 1.0), name=name) for name in ("h100_vllm.csv", "a100_80_vllm.csv")]
    found = kv.validate(*paths, measurement("capacity.csv"))
    assert set(found.rows["file"]) == {"h100_vllm.csv", "a100_80_vllm.csv", "capacity.csv"}
    assert {"cache_tokens", "cache_gib", "gemm"} == set(found.rows["kind"])
    assert len(found.lines) == 72
    assert len(found.as_dict()["printed"]) == 1
    assert found.chart.figure().axes


def test_the_published_tables():
    for name, number in [("h100_vllm", 27_755), ("rtx_4090_vllm", 1_603), ("mixed_attention_rtx_4090_vllm", 8_448)]:
        found = kv.validate(measurement(f"kernels/{name}.parquet"))
        assert len(found.rows) == number
        assert (found.rows["ours"] > 0).all()
        assert np.isfinite(found.rows["error"]).all()
    assert kernels_of(H100)


def test_each_time_has_the_interval_of_its_kind_of_work(tmp_path):
    low, high = doubt_of(H100).ends("products")
    (row,) = kv.validate(table(tmp_path, gemm(16, 1e-5))).rows.to_dict("records")
    assert (row["low"], row["high"]) == pytest.approx((row["ours"] * low, row["ours"] * high))
    assert low < 1 < high
    sizes = {"prefill_tokens": 512, "prefill_context_tokens": 64, "decode_sequences": 4, "decode_context_tokens": 99}
    heads = {"num_heads": 32, "num_kv_heads": 8, "head_dim": 128, "dtype": "bfloat16"}
    found = kv.validate(table(tmp_path, {**sizes, **heads, "seconds": 1.0}))
    assert math.isnan(found.errors.coverage)
