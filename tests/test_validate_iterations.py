"""Decode iterations of a model as sums of a table's kernels, beside the same sums of ours."""

import numpy as np
import pandas as pd
import pytest

import kvbench as kv
from kvbench.calibration.validation.iterations import _between
from kvbench.configuration.catalogue import own_node
from kvbench.configuration.model import hardware_of, model_of
from kvbench.timing.kernels import Kernels
from kvbench.timing.shapes import AttentionShape
from tests.support.measurements import measurement

OURS = Kernels(hardware_of({"hardware": own_node("hardware", "h100")}))
LLAMA = model_of({"model": own_node("model", "llama3_8b"), "dtype": None})
SHAPE = AttentionShape(32, 8, 128, 128, "bfloat16", "bfloat16")
HEADS = {"num_heads": 32, "num_kv_heads": 8, "head_dim": 128, "window": 0, "kv_dtype": "bfloat16", "new_tokens": 1}


def rows(batch, context, scale=1.0, matrices=LLAMA.matrices):
    """A table of an iteration's kernels, each as many times ours."""
    attention = {"op": "decode_attention", "dtype": "bfloat16", "batch": batch, "context_tokens": context, **HEADS}
    yield attention | {"seconds": scale * float(OURS.decode_s(batch * (context + 1), batch, SHAPE))}
    for matrix in matrices:
        seconds = float(OURS.product_s(batch, matrix.outputs, matrix.inputs, "bfloat16"))
        shape = {"m": batch, "n": matrix.outputs, "k": matrix.inputs}
        yield {"op": "gemm", "dtype": "bfloat16", **shape, "seconds": scale * seconds}


def held(folder, given):
    path = folder / "h100_vllm.csv"
    pd.DataFrame(given).to_csv(path, index=False)
    found = kv.validate(path, model="llama3_8b")
    return found, found.rows[found.rows["kind"] == "decode_iteration"]


def test_an_iteration_is_all_layers_kernels_and_the_head(tmp_path):
    _, iterations = held(tmp_path, [*rows(4, 99, 0.5), *rows(8, 4999)])
    assert iterations["what"].tolist() == ["4 after 99", "8 after 4,999"]
    assert iterations["error"].tolist() == pytest.approx([1.0, 0.0])
    assert iterations["region"].tolist() == ["small batch, short context", "small batch, long context"]
    products = sum(m.times * OURS.product_s(4, m.outputs, m.inputs, "bfloat16") for m in LLAMA.matrices)
    ours = products + 32 * OURS.decode_s(400, 4, SHAPE)
    assert iterations["ours"].iloc[0] == pytest.approx(float(ours))


def test_what_the_table_lacks_is_left_out_on_both_sides(tmp_path):
    without = [matrix for matrix in LLAMA.matrices if matrix.kind != "head"]
    found, iterations = held(tmp_path, rows(4, 99, matrices=without))
    assert iterations["error"].item() == pytest.approx(0.0)
    assert "h100_vllm.csv: iterations of Llama-3.1-8B leave out lm_head: there is no product" in found.not_told[0]
    with pytest.raises(ValueError, match=r"no attention and products of Llama-3\.1-8B at the same batches"):
        held(tmp_path, list(rows(4, 99))[1:])


def test_products_between_those_measured_are_interpolated_in_logarithms():
    table = pd.DataFrame({"n": [256, 1024, 256, 1024], "k": [256, 256, 4096, 4096], "seconds": [1.0, 4.0, 16.0, 64.0]})
    assert _between(table, 512, 256) == pytest.approx(2.0)
    assert _between(table, 512, 1024) == pytest.approx(8.0)
    assert np.isnan(_between(table, 2048, 256))
    assert np.isnan(_between(table, 512, 128))


def test_models_that_are_no_sums_of_such_kernels_are_refused(tmp_path):
    path = tmp_path / "h100_vllm.csv"
    pd.DataFrame(rows(4, 99)).to_csv(path, index=False)
    for model in ("mixtral_8x7b", "gpt_oss_20b"):
        with pytest.raises(ValueError, match="dense models of layers that are alike"):
            kv.validate(path, model=model)


def test_the_published_tables():
    found = kv.validate(measurement("kernels/rtx_4090_vllm.parquet"), model="llama3_8b")
    assert (found.rows["kind"] == "decode_iteration").sum() == 99
