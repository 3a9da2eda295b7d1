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
NUMBERS = ("gpu_memory_gib", "memory_fraction", "available_kv_gib", "max_concurrency")
COLUMNS = (*TEXTS, *COUNTS, *NUMBERS)
"""Columns that a table has; others may stand beside them."""
OPTIONAL = ("config_bytes_per_token", "kind", "explanation")
YES, NO = "yes", "no"


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
        for key in (*COUNTS, *NUMBERS):
            _check_number(where, key, row[key])
        if row["circular"] not in ("", YES, NO):
            raise ValueError(f"{where}: circular is {YES}, {NO} or empty, got {cut(repr(row['circular']))}")
        yield dict.fromkeys(OPTIONAL, "") | row


def _check_number(where: str, key: str, text: str) -> None:
    try:
        value = float(text or 0)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: {key} is a number or empty, got {cut(repr(text))}")
    if key in COUNTS and (value < 0 or value != int(value)):
        raise ValueError(f"{where}: {key} is a whole number or empty, got {cut(repr(text))}")
