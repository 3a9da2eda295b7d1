"""A decode iteration's kernels, summed up: of tables of measured ones, and of ours."""

import numpy as np
import pytest

from kvbench.calibration.tables import read_kernels
from kvbench.model.hardware import hardware_from
from kvbench.timing.kernels import kernels_of
from kvbench.timing.shapes import AttentionShape
from tests.support.catalogue import node_of
from tests.support.measurements import measurement

MACHINES = ("h100", "h200", "a100_80", "l40s", "rtx_4090")
# Llama-3.1-8B: outputs, inputs and how often, and its heads.
PRODUCTS = ((6144, 4096, 32), (4096, 4096, 32), (28672, 4096, 32), (4096, 14336, 32), (128256, 4096, 1))
HEADS, NUM_LAYERS = AttentionShape(32, 8, 128, 128, "bfloat16", "bfloat16"), 32
SHORTEST = 100
MOST_MAPE = 0.05


def between(sizes, seconds, size):
    """A time at a size, straight in logarithms between measured ones, and beyond them."""
    known = np.isfinite(seconds)
    at, told = np.log(np.asarray(sizes, float)[known]), np.log(np.asarray(seconds)[known])
    if size in np.asarray(sizes)[known]:
        return seconds[list(sizes).index(size)]
    if len(at) < 2:
        return np.nan
    i = np.clip(np.searchsorted(at, np.log(size)) - 1, 0, len(at) - 2)
    return np.exp(told[i] + (told[i + 1] - told[i]) * (np.log(size) - at[i]) / (at[i + 1] - at[i]))


def product_s(rows, outputs, inputs):
    """A product's time by rows of so many tokens."""
    grid = rows.pivot_table(index="n", columns="k", values="seconds")
    by_outputs = [between(grid.columns, grid.loc[n].to_numpy(), inputs) for n in grid.index]
    return between(grid.index, np.array(by_outputs), outputs)


@pytest.mark.parametrize("name", MACHINES)
def test_sums_of_a_decode_iterations_kernels_are_those_of_the_table(name):
    table = read_kernels(measurement(f"kernels/{name}_vllm.parquet"))
    kernels = kernels_of(hardware_from(node_of("hardware", name)))
    gemm = table[(table["op"] == "gemm") & (table["dtype"] == "bfloat16")]
    heads = {"num_heads": 32, "num_kv_heads": 8, "head_dim": 128, "window": 0, "kv_dtype": "bfloat16"}
    own = table[(table["op"] == "decode_attention") & (table["context_tokens"] >= SHORTEST)]
    for column, value in heads.items():
        own = own[own[column] == value]
    errors = []
    for batch, steps in own.groupby("batch"):
        rows = gemm[gemm["m"] == batch]
        if not len(rows):
            continue
        measured = sum(times * product_s(rows, n, k) for n, k, times in PRODUCTS)
        ours = sum(times * kernels.product_s(batch, n, k, "bfloat16") for n, k, times in PRODUCTS)
        seen = batch * (steps["context_tokens"].to_numpy() + 1)
        whole = measured + NUM_LAYERS * steps["seconds"].to_numpy()
        errors.append((ours + NUM_LAYERS * kernels.decode_s(seen, batch, HEADS)) / whole - 1)
    off = np.abs(np.concatenate(errors))
    assert len(errors) > 8
    assert off.mean() <= MOST_MAPE
