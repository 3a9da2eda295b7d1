"""Read traces that are CSV files of requests without sessions."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_file import Converter, read_csv
from kvbench.workload.trace_values import SECONDS, TIMESTAMPS, whole_numbers


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
