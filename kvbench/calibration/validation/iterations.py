"""Decode iterations of a model as sums of a table's kernels: products and attention in all layers, beside ours."""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kvbench.calibration.attention import attention_s
from kvbench.calibration.tables import is_held_out, judges_intervals
from kvbench.calibration.validation.drawn import sum_ends
from kvbench.calibration.validation.kernels import LONG_CONTEXT, SMALL_STEP, Judged
from kvbench.calibration.validation.rows import held_rows
from kvbench.model.dtypes import kv_dtype
from kvbench.model.matrices import Matrix
from kvbench.model.model import Model
from kvbench.model.weights import EXPERTS
from kvbench.timing.doubt import Doubt
from kvbench.timing.kernels import Kernels

KIND = "decode_iteration"


def judged_iterations(table: pd.DataFrame, kernels: Kernels, rank: Model, doubt: Doubt | None = None) -> Judged:
    """Each iteration whose batch and context the table has attention for: the sum of its kernels, beside that of ours.

    A product between the table's is interpolated, in logarithms. One beyond them is left out on both sides, as is what
    such tables have no kernels of: norms, activation functions, the sampler, exchanges.

    Args:
        table: from `tables.read_kernels`.
        kernels: of its accelerator.
        rank: the model of a rank, dense, its layers alike.
        doubt: what kernels may be off by, for intervals; None: there are none.
    Raises:
        ValueError: the model has experts or layers that differ, or the table has no kernels of it.
    """
    if len(rank.groups) != 1 or any(matrix.kind == EXPERTS for matrix in rank.matrices):
        raise ValueError(f"iterations are sums for dense models of layers that are alike, which {rank.name} is not")
    (group,) = rank.groups
    decode, cache = table[table["op"] == "decode_attention"], kv_dtype(group.dtype)
    shape = {"num_heads": group.num_heads, "num_kv_heads": group.num_kv_heads, "head_dim": group.key_dim, "window": 0}
    own = decode[(decode[list(shape)] == pd.Series(shape)).all(axis=1) & (decode["dtype"] == rank.dtype)]
    own = own[np.array([kv_dtype(name) == cache for name in own["kv_dtype"]], np.bool_)]
    products = table[table["op"] == "gemm"]
    published = rank.num_layers * own["seconds"].to_numpy()
    attending_s, products_s = rank.num_layers * attention_s(own, kernels), np.zeros(len(own))
    left = []
    for matrix in rank.matrices:
        told = _measured(products, matrix, own["batch"].to_numpy())
        if np.isnan(told).all():
            left.append(f"iterations of {rank.name} leave out {matrix.name}: there is no product of its size and dtype")
            continue
        published = published + matrix.times * told
        products_s = products_s + matrix.times * kernels.product_s(
            own["batch"], matrix.outputs, matrix.inputs, matrix.dtype
        )
    told = np.isfinite(published)
    if len(left) == len(rank.matrices) or not told.any():
        raise ValueError(f"it has no attention and products of {rank.name} at the same batches")
    judges = judges_intervals(own) | (doubt is None or not doubt.is_measured)
    low, high = sum_ends(KIND, {"decode": attending_s, "products": products_s}, doubt)
    own = own.assign(
        published=published, ours=attending_s + products_s, held=is_held_out(own) | (not kernels.is_fitted)
    )
    own = own.assign(low=low, high=high, judges=judges)[told]
    found = held_rows(
        what=[f"{row.batch:,} after {row.context_tokens:,}" for row in own.itertuples()],
        kind=KIND,
        group=f"{rank.name}, {rank.matrices[0].dtype}",
        region=[_region(row.batch, row.context_tokens) for row in own.itertuples()],
        unit="s",
        published=own["published"],
        ours=own["ours"],
        held_out=own["held"].to_numpy(),
        low=own["low"],
        high=own["high"],
        judges=own["judges"].to_numpy(),
    )
    return Judged(found, tuple(left))


def _region(batch: int, context: int) -> str:
    return (
        f"{'small' if batch <= SMALL_STEP else 'large'} batch, {'short' if context < LONG_CONTEXT else 'long'} context"
    )


def _measured(products: pd.DataFrame, matrix: Matrix, batches: NDArray[np.int64]) -> NDArray[np.float64]:
    """Seconds of a matrix's product for so many tokens each; NaN where the table has none about it."""
    own = products[products["dtype"] == matrix.dtype]
    found = {
        batch: _between(own[own["m"] == batch], matrix.outputs, matrix.inputs) for batch in np.unique(batches).tolist()
    }
    return np.array([found[batch] for batch in batches.tolist()])


def _between(products: pd.DataFrame, outputs: int, inputs: int) -> float:
    by_inputs = {
        size: _at(outputs, same["n"].to_numpy(), same["seconds"].to_numpy()) for size, same in products.groupby("k")
    }
    told = {float(str(size)): seconds for size, seconds in by_inputs.items() if math.isfinite(seconds)}
    return _at(inputs, np.array(list(told)), np.array(list(told.values())))


def _at(size: int, sizes: NDArray[np.float64], seconds: NDArray[np.float64]) -> float:
    if not sizes.size or not sizes.min() <= size <= sizes.max():
        return math.nan
    order = np.argsort(sizes)
    return float(np.exp(np.interp(np.log(size), np.log(sizes[order]), np.log(seconds[order]))))
