"""A table of lines that engines printed at their start, as rows of checked texts."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from kvbench.files import check_regular
from kvbench.messages import cut

TEXTS = ("id", "engine", "version", "model", "hardware", "weights_dtype", "kv_dtype", "doubt", "circular")
COUNTS = (
    "tensor_parallel",
    "pipeline_parallel",
    "max_model_len",
    "max_num_batched_tokens",
    "max_num_seqs",
    "block_size",
    "num_tokens",
)
COLUMNS = (*TEXTS, *COUNTS, "gpu_memory_gib", "memory_fraction", "available_kv_gib", "max_concurrency")
"""Columns that a table has; others may stand beside them."""
OPTIONAL = ("config_bytes_per_token", "kind", "explanation")
YES, NO = "yes", "no"
MOST_COUNT, MOST_GIB = 2**40, 2**20
BOUNDS = {
    "gpu_memory_gib": (0.0, MOST_GIB),
    "memory_fraction": (0.0, 1.0),
    "available_kv_gib": (-MOST_GIB, MOST_GIB),
    "max_concurrency": (-1.0, MOST_COUNT),
    "config_bytes_per_token": (0.0, MOST_COUNT),
}
"""Numbers are above the first, and at most the second."""


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a table.

    Returns:
        Its rows, texts by column; of OPTIONAL columns that it lacks, empty ones.
    Raises:
        ValueError: there is no such table, it lacks a column, or a number is none; the message says where.
    """
    try:
        check_regular(path)
        with path.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, strict=True)
            lacking = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if lacking:
                raise ValueError(f"{path}: a table of printed lines has the columns {', '.join(lacking)}, too")
            rows = list(_rows(path, reader))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(f"{path}: it cannot be read: {said}") from error
    if not rows:
        raise ValueError(f"{path}: it has no lines beside its head")
    return rows


def _rows(path: Path, reader: "csv.DictReader[str]") -> Iterator[dict[str, str]]:
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        if None in row or None in row.values():
            raise ValueError(f"{where}: it has more or fewer values than the head has columns")
        row = dict.fromkeys(OPTIONAL, "") | row
        for key in COUNTS:
            _check_count(where, key, row[key])
        for key, bounds in BOUNDS.items():
            _check_number(where, key, row[key], bounds)
        if row["circular"] not in ("", YES, NO):
            raise ValueError(f"{where}: circular is {YES}, {NO} or empty, got {cut(repr(row['circular']))}")
        yield row


def _check_number(where: str, key: str, text: str, bounds: tuple[float, float]) -> None:
    value = _value(text)
    if value is not None and not bounds[0] < value <= bounds[1]:
        raise ValueError(
            f"{where}: {key} is a number above {bounds[0]:g} and at most {bounds[1]:g}, or empty, got {cut(repr(text))}"
        )


def _check_count(where: str, key: str, text: str) -> None:
    value = _value(text)
    if value is not None and not (0 <= value <= MOST_COUNT and value == int(value)):
        raise ValueError(f"{where}: {key} is a whole number of at least 0, or empty, got {cut(repr(text))}")


def _value(text: str) -> float | None:
    """A number; None of nothing, and no number of what is none."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        return math.nan
