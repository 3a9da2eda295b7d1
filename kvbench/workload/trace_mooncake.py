"""Read Mooncake's traces: JSON lines with the ids of the prompts' blocks."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvbench.naming import unknown
from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_file import CHUNK_ROWS, Chunk, TraceError, bad_cell, open_text
from kvbench.workload.trace_values import MILLISECONDS, json_integers

BLOCK_TOKENS = 512
KEYS = ("timestamp", "input_length", "output_length", "hash_ids")


def read_mooncake(path: Path) -> TraceColumns:
    """Read JSON lines with timestamp (ms), input_length, output_length, hash_ids (one a block of 512 tokens).

    Source: kvcache-ai/Mooncake, FAST'25 release.
    Departs: none.
    """
    parts = [_arrays(chunk) for chunk in _read_json_lines(path)]
    times, prompts, outputs, counts, ids = (np.concatenate(part) for part in zip(*parts, strict=True))
    return TraceColumns(
        arrival_ns=times,
        num_prompt_tokens=prompts,
        num_output_tokens=outputs,
        block_ids=ids,
        block_offsets=np.concatenate(([0], np.cumsum(counts))),
        block_tokens=BLOCK_TOKENS,
    ).by_arrival()


def _read_json_lines(path: Path) -> Iterator[Chunk]:
    found = False
    with open_text(path) as text:
        rows = _json_rows(path, text)
        while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
            found = True
            lines, cells = zip(*chunk, strict=True)
            yield Chunk(path, lines, dict(zip(KEYS, zip(*cells, strict=True), strict=True)))
    if not found:
        raise TraceError(f"{path} has blank lines only; allowed is a file with rows")


def _json_rows(path: Path, text: Iterator[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    decode = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_row_of).decode
    for line, content in enumerate(text, start=1):
        if content.isspace():
            continue
        try:
            row = decode(content)
        except (ValueError, RecursionError) as error:
            raise TraceError(f"{path}, line {line}: got a line that is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise TraceError(f"{path}, line {line}: got a {type(row).__name__}; allowed is a JSON object")
        try:
            yield line, tuple(row[key] for key in KEYS)
        except KeyError as error:
            raise TraceError(f"{path}, line {line}: {unknown('column', error.args[0], row)}") from None


def _row_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice!r} stands twice in one object")
    return row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _arrays(chunk: Chunk) -> tuple[NDArray[np.int64], ...]:
    times = chunk.convert("timestamp", MILLISECONDS)
    prompts = chunk.convert("input_length", json_integers(1))
    outputs = chunk.convert("output_length", json_integers(0))
    blocks = chunk.columns["hash_ids"]
    if set(map(type, blocks)) != {list}:
        row = next(i for i, ids in enumerate(blocks) if type(ids) is not list)
        raise bad_cell(chunk.path, chunk.lines[row], "hash_ids", blocks[row], "a list of block ids")
    counts = np.fromiter(map(len, blocks), dtype=np.int64, count=len(blocks))
    wanted = -(-prompts // BLOCK_TOKENS)
    if (counts != wanted).any():
        row = int(np.argmax(counts != wanted))
        allowed = f"one id for each block of {BLOCK_TOKENS} tokens: {wanted[row]} for {prompts[row]} tokens"
        raise bad_cell(chunk.path, chunk.lines[row], "hash_ids", f"{counts[row]} ids", allowed)
    return times, prompts, outputs, counts, _flat_ids(chunk, blocks)


def _flat_ids(chunk: Chunk, blocks: Sequence[list[object]]) -> NDArray[np.int64]:
    ids = json_integers(0, 2**63 - 1)
    lines = [line for line, row in zip(chunk.lines, blocks, strict=True) for _ in row]
    flat = [block for row in blocks for block in row]
    return Chunk(chunk.path, lines, {"hash_ids": flat}).convert("hash_ids", ids)
