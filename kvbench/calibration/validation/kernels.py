"""Tables of measured kernels held against `timing.kernels`: each row's time beside ours."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kvbench.calibration.attention import attention_s
from kvbench.calibration.products import BALANCED, REPLAYED, touched_by_rows
from kvbench.calibration.tables import is_held_out, judges_intervals
from kvbench.calibration.validation.rows import held_rows
from kvbench.model.dtypes import KV_BITS, kv_dtype
from kvbench.timing.doubt import Doubt
from kvbench.timing.kernels import Kernels
from kvbench.timing.operands import OPERANDS
from kvbench.timing.rooflines import Seconds
from kvbench.timing.shapes import ExpertShape

SMALL_BATCH, SMALL_STEP, LONG_PROMPT, LONG_CONTEXT, SMALL_MESSAGE = 256, 16, 512, 4096, 1 << 20
"""Tokens of a product, sequences of a decode step, tokens of a prompt, tokens seen and bytes exchanged, up to which (of
a prompt and a context: from which) a row is of the region that is named after it."""
KINDS_OF = {
    "gemm": "products",
    "moe": "experts",
    "prefill_attention": "prefill",
    "decode_attention": "decode",
    "elementwise": "traffic",
    "all_reduce": "exchange",
}
"""Kinds of work by operations of tables."""
NO_EVIDENCE = {"vllm_eager": "what Python and launches take is in it", "sampler": "the bytes stated are a lower bound"}
"""Rows that say nothing of kernels, by the beginning of their detail, and why."""
NO_ENDS = (np.nan, np.nan)
POOR_EXPERTS = "fp8"
"""Experts of one scale a tensor: a kernel that an engine had better not choose, and no measure of a machine."""
GROUPED = 256
"""Experts of DeepSeek-V3, whose tokens choose among some groups of them: how many are touched is not known."""


class Judged(NamedTuple):
    """What is held against ours.

    Args:
        rows: see `rows.COLUMNS`.
        not_told: what is not, and why; a sentence each.
    """

    rows: pd.DataFrame
    not_told: tuple[str, ...]


def judged_kernels(table: pd.DataFrame, kernels: Kernels, doubt: Doubt | None = None) -> Judged:
    """Each kernel's time beside ours.

    Args:
        table: from `tables.read_kernels`.
        kernels: of its accelerator.
        doubt: what they may be off by, for intervals; None: there are none.
    """
    judges = ~is_doubtful(table)
    if doubt is not None and doubt.is_measured:
        judges &= judges_intervals(table)
    held = is_held_out(table) | (not kernels.is_fitted)
    table = table.assign(line=np.arange(1, len(table) + 1), held=held, judges=judges)
    parts, not_told = [], []
    for op, own in table.groupby("op", sort=False):
        for why, left in _left_out(str(op), own):
            not_told.append(f"{len(left):,} rows of {op}{_detail(left)} are not told: {why}")
            own = own.drop(left.index)
        if len(own):
            ends = NO_ENDS if doubt is None else doubt.ends(KINDS_OF[str(op)])
            parts.append(_rows(str(op), own, kernels, ends))
    found = pd.concat(parts) if parts else _rows("gemm", table[:0], kernels, NO_ENDS)
    return Judged(found.sort_values("line", ignore_index=True).drop(columns="line"), tuple(not_told))


def is_doubtful(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Rows that say little of a machine: experts by a poor kernel, or of which it is not known how many are touched;
    and sums that no engine replays, beside those that one does."""
    of_experts, is_balanced = frame["op"] == "moe", frame["detail"].str.startswith(BALANCED)
    doubtful = (frame["dtype"] == POOR_EXPERTS) | (frame["num_experts"] == GROUPED)
    if is_balanced.any():
        doubtful |= ~is_balanced
    is_sum, is_replayed = frame["op"] == "all_reduce", frame["detail"].str.startswith(REPLAYED)
    other = is_sum & ~is_replayed & bool(is_replayed.any())
    return ((of_experts & doubtful) | other).to_numpy(np.bool_)


def _left_out(op: str, own: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for detail, why in NO_EVIDENCE.items():
        left = own[own["detail"].str.startswith(detail)]
        if len(left):
            yield why, left
            own = own.drop(left.index)
    if op in ("gemm", "moe"):
        for dtype, left in own[~own["dtype"].isin(OPERANDS)].groupby("dtype"):
            yield f"operands of {str(dtype) or 'no dtype'} are not modelled", left
    if op.endswith("attention"):
        for dtype, left in own[~own["kv_dtype"].map(_is_cache)].groupby("kv_dtype"):
            yield f"a cache of {str(dtype) or 'no dtype'} is not modelled", left


def _is_cache(name: str) -> bool:
    try:
        return kv_dtype(name) in KV_BITS
    except ValueError:
        return False


def _detail(left: pd.DataFrame) -> str:
    details = left["detail"].str.partition(";")[0].unique()
    return f" ({details[0]})" if len(details) == 1 and details[0] else ""


def _rows(op: str, own: pd.DataFrame, kernels: Kernels, ends: tuple[float, float]) -> pd.DataFrame:
    seconds, group, region, what = _SAID[op]
    ours = seconds(own, kernels)
    found = held_rows(
        what=[what(row) for row in own.itertuples(index=False)],
        kind=op,
        group=[group(row) for row in own.itertuples(index=False)],
        region=region(own).tolist(),
        unit="s",
        published=own["seconds"],
        ours=ours,
        held_out=own["held"].to_numpy(),
        low=ours * ends[0],
        high=ours * ends[1],
        judges=own["judges"].to_numpy(),
    )
    return found.assign(line=own["line"].to_numpy())


def _by_shape(own: pd.DataFrame, columns: Sequence[str], seconds: Callable[[pd.DataFrame, Any], Seconds]) -> Seconds:
    """Seconds of rows, those of a shape together."""
    found = np.empty(len(own))
    places = pd.Series(np.arange(len(own)), own.index)
    for shape, rows in own.groupby(list(columns), sort=False):
        found[places[rows.index]] = seconds(rows, shape)
    return found


def _products(own: pd.DataFrame, kernels: Kernels) -> Seconds:
    return _by_shape(own, ["dtype"], lambda rows, key: kernels.product_s(rows["m"], rows["n"], rows["k"], key[0]))


def _experts(own: pd.DataFrame, kernels: Kernels) -> Seconds:
    columns = ["num_experts", "top_k", "hidden", "intermediate", "dtype"]

    def seconds(rows: pd.DataFrame, key: Any) -> Seconds:
        shape = ExpertShape(*key)
        return kernels.touched_experts_s(rows["m"], touched_by_rows(rows, shape), shape)

    return _by_shape(own, columns, seconds)


def _traffic(own: pd.DataFrame, kernels: Kernels) -> Seconds:
    return kernels.traffic_s(own["bytes"])


def _exchanges(own: pd.DataFrame, kernels: Kernels) -> Seconds:
    return _by_shape(own, ["num_gpus"], lambda rows, key: kernels.exchange_s("all_reduce", rows["bytes"], int(key[0])))


def _batch(own: pd.DataFrame) -> pd.Series:
    return _either(own["m"] <= SMALL_BATCH, "small batch", "large batch")


def _step(own: pd.DataFrame) -> pd.Series:
    batch = _either(own["batch"] <= SMALL_STEP, "small batch", "large batch")
    return batch + ", " + _either(own["context_tokens"] < LONG_CONTEXT, "short context", "long context")


def _prompt(own: pd.DataFrame) -> pd.Series:
    return _either(own["new_tokens"] < LONG_PROMPT, "short prompts", "long prompts")


def _message(own: pd.DataFrame) -> pd.Series:
    return _either(own["bytes"] <= SMALL_MESSAGE, "small messages", "large messages")


def _either(is_first: pd.Series, first: str, second: str) -> pd.Series:
    return is_first.map({True: first, False: second})


def _routing(row: Any) -> str:
    return f"{row.dtype}, {row.detail.partition(';')[0].removeprefix('routing=') or 'any'} routing"


def _attending(row: Any) -> str:
    return row.dtype if row.kv_dtype == row.dtype else f"{row.dtype}, cache {row.kv_dtype}"


def _heads(row: Any) -> str:
    window = f", window {row.window:,}" if row.window else ""
    context = f" after {row.context_tokens:,}" if row.context_tokens else ""
    return (
        f"row {row.line}: {row.batch} × {row.new_tokens:,}{context}, heads {row.num_heads}/{row.num_kv_heads} of "
        f"{row.head_dim}{window}"
    )


_SAID: dict[str, tuple[Callable[..., Seconds], Callable[[Any], str], Callable[..., pd.Series], Callable[[Any], str]]]
_SAID = {
    "gemm": (
        _products,
        lambda row: row.dtype,
        _batch,
        lambda row: f"row {row.line}: ({row.m:,}, {row.k:,}) by ({row.k:,}, {row.n:,})",
    ),
    "moe": (
        _experts,
        _routing,
        _batch,
        lambda row: (
            f"row {row.line}: {row.m:,} tokens, {row.top_k} of {row.num_experts} experts of "
            f"{row.hidden:,} by {row.intermediate:,}"
        ),
    ),
    "prefill_attention": (attention_s, _attending, _prompt, _heads),
    "decode_attention": (attention_s, _attending, _step, _heads),
    "elementwise": (
        _traffic,
        lambda row: row.dtype,
        _batch,
        lambda row: f"row {row.line}: {row.bytes:,} bytes, {row.detail}",
    ),
    "all_reduce": (
        _exchanges,
        lambda row: f"{row.dtype}, {row.detail.partition(';')[0] or 'any'}",
        _message,
        lambda row: f"row {row.line}: {row.bytes:,} bytes of {row.num_gpus}",
    ),
}
"""Of an operation: our seconds, its group, its region, and what a row is called."""
