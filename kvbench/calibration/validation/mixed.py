"""Calls of attention that take a prompt's chunk and decode steps together, held against what steps add to a chunk."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kvbench.calibration.attention import attention_shape
from kvbench.calibration.tables import is_held_out_by, judges_intervals_by
from kvbench.calibration.validation.columns import checked_columns
from kvbench.calibration.validation.drawn import sum_ends
from kvbench.calibration.validation.kernels import LONG_CONTEXT, SMALL_STEP, Judged
from kvbench.calibration.validation.rows import held_rows
from kvbench.timing.doubt import Doubt
from kvbench.timing.kernels import Kernels

KIND = "mixed_attention"
SIZES = ("prefill_tokens", "prefill_context_tokens", "decode_sequences", "decode_context_tokens")
HEADS = ("num_heads", "num_kv_heads", "head_dim")
COLUMNS = (*SIZES, *HEADS, "dtype", "seconds")


def read_mixed(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """A table of such calls: whole numbers, and seconds above 0.

    Raises:
        ValueError: a column is missing, or a value is not allowed.
    """
    return checked_columns(
        path, frame, "calls of attention", whole=(*SIZES, *HEADS), positive=("seconds",), texts=("dtype",)
    )


def judged_mixed(table: pd.DataFrame, kernels: Kernels, doubt: Doubt | None = None) -> Judged:
    """Each call's time beside ours: the chunk's, and what the step adds.

    Args:
        table: from `read_mixed`.
        kernels: of its accelerator.
        doubt: what they may be off by, for intervals; None: there are none.
    """
    chunks, steps, places = np.empty(len(table)), np.empty(len(table)), pd.Series(np.arange(len(table)), table.index)
    key: Any
    for key, rows in table.groupby([*HEADS, "dtype"], sort=False):
        heads, kv_heads, width, dtype = key
        shape = attention_shape(heads, kv_heads, width, dtype, dtype, 0)
        fixed, token = kernels.mixed_terms(rows["decode_sequences"], shape)
        seen = (rows["decode_sequences"] * (rows["decode_context_tokens"] + 1)).to_numpy()
        at = places[rows.index]
        chunks[at] = kernels.prefill_s(rows["prefill_tokens"], rows["prefill_context_tokens"], shape)
        steps[at] = fixed + token * seen
    low, high = sum_ends(KIND, {"prefill": chunks, "decode": steps}, doubt)
    small, short = table["decode_sequences"] <= SMALL_STEP, table["decode_context_tokens"] < LONG_CONTEXT
    found = held_rows(
        what=[
            f"row {line}: {row.prefill_tokens:,} after {row.prefill_context_tokens:,}, and {row.decode_sequences} × 1 "
            f"after {row.decode_context_tokens:,}"
            for line, row in enumerate(table.itertuples(index=False), 1)
        ],
        kind=KIND,
        group=table["dtype"].tolist(),
        region=[
            f"{'small' if few else 'large'} batch, {'short' if near else 'long'} context"
            for few, near in zip(small, short, strict=True)
        ],
        unit="s",
        published=table["seconds"],
        ours=chunks + steps,
        held_out=is_held_out_by(table, (*SIZES, *HEADS)) | (not kernels.is_fitted),
        low=low,
        high=high,
        judges=judges_intervals_by(table, (*SIZES, *HEADS)) | (doubt is None or not doubt.is_measured),
    )
    return Judged(found, ())
