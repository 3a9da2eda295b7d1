"""Read traces in the formats they are published in, into columns."""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from kvbench.messages import unknown
from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_file import Converter, read_csv
from kvbench.workload.trace_mooncake import read_mooncake
from kvbench.workload.trace_values import SECONDS, TIMESTAMPS, whole_numbers


def read_trace(path: Path, format_name: str, **told: object) -> TraceColumns:
    """Read a trace.

    Args:
        path: the file, plain or gzip.
        format_name: azure, mooncake, plain or sharegpt.
        told: what a file of the format leaves open: of mooncake, block_tokens and time_unit.
    Returns:
        Its columns, sorted by arrival; requests of equal arrival keep the file's order.
    Raises:
        ValueError: there is no such format.
        TraceMissing: there is no such file.
        TraceError: the file is not of the format.
    """
    if format_name not in READERS:
        raise ValueError(unknown("trace format", format_name, READERS))
    return READERS[format_name](path, **told)


def read_azure(path: Path) -> TraceColumns:
    """Read CSV with TIMESTAMP (UTC), ContextTokens, GeneratedTokens.

    Source: Azure/AzurePublicDataset, AzureLLMInferenceDataset2023 and 2024.
    Departs: none.
    """
    return _from_csv(path, "TIMESTAMP", TIMESTAMPS, "ContextTokens", "GeneratedTokens")


def read_plain(path: Path) -> TraceColumns:
    """Read CSV with arrived_at (seconds), num_prefill_tokens, num_decode_tokens.

    Source: the trace format of microsoft/vidur.
    Departs: none.
    """
    return _from_csv(path, "arrived_at", SECONDS, "num_prefill_tokens", "num_decode_tokens")


def read_sharegpt(path: Path) -> TraceColumns:
    """Read CSV with num_prefill_tokens and num_decode_tokens, and no times.

    Source: the lengths files of microsoft/vidur.
    Departs: none.
    """
    columns = _csv_arrays(path, {"num_prefill_tokens": whole_numbers(1), "num_decode_tokens": whole_numbers(0)})
    return TraceColumns(
        arrival_ns=None,
        num_prompt_tokens=columns["num_prefill_tokens"],
        num_output_tokens=columns["num_decode_tokens"],
    )


READERS: MappingProxyType[str, Callable[..., TraceColumns]] = MappingProxyType(
    {"azure": read_azure, "mooncake": read_mooncake, "plain": read_plain, "sharegpt": read_sharegpt}
)
WITHOUT_TIMES = frozenset({"sharegpt"})
WITH_BLOCKS = frozenset({"mooncake"})
"""Formats that say which blocks prompts share."""


def _from_csv(path: Path, time: str, times: Converter, prompt: str, output: str) -> TraceColumns:
    columns = _csv_arrays(path, {time: times, prompt: whole_numbers(1), output: whole_numbers(0)})
    return TraceColumns(
        arrival_ns=columns[time],
        num_prompt_tokens=columns[prompt],
        num_output_tokens=columns[output],
    ).by_arrival()


def _csv_arrays(path: Path, converters: dict[str, Converter]) -> dict[str, NDArray[np.int64]]:
    parts = [
        [chunk.convert(name, converter) for name, converter in converters.items()]
        for chunk in read_csv(path, list(converters))
    ]
    return {name: np.concatenate(part) for name, part in zip(converters, zip(*parts, strict=True), strict=True)}
