"""Read Mooncake's traces: JSON lines with the ids of the prompts' blocks."""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvbench.messages import unknown
from kvbench.workload.interning import Interning
from kvbench.workload.request import NS_PER_S
from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_file import CHUNK_ROWS, Chunk, TraceError, bad_cell, open_text
from kvbench.workload.trace_json import json_objects
from kvbench.workload.trace_values import MAX_S, MILLISECONDS, json_integers

BLOCK_TOKENS = 512
"""A block's tokens in the published files."""
SIZES = tuple(1 << power for power in range(21))
"""Sizes of blocks that a file may have without saying so."""
MOST_PER_S = 100
"""Requests a second from which on a file's milliseconds are rather seconds."""
UNITS = {"ms": 1, "s": 1_000}
KEYS = ("timestamp", "input_length", "output_length", "hash_ids")


def read_mooncake(path: Path, block_tokens: int | None = None, time_unit: str | None = None) -> TraceColumns:
    """Read JSON lines with timestamp (ms), input_length, output_length, hash_ids (one a block of 512 tokens).

    Args:
        path: the file, plain or gzip.
        block_tokens: tokens a block; None: 512, where the file's rows allow no other size.
        time_unit: ms or s; None: ms, where that makes no more than 100 requests a second.
    Raises:
        TraceError: the file is not of the format, or leaves open what was not given.
    Source: kvcache-ai/Mooncake, FAST'25 release.
    Departs: none.
    """
    parts = [_arrays(chunk) for chunk in _read_json_lines(path)]
    lines, times, prompts, outputs, counts, ids = (np.concatenate(part) for part in zip(*parts, strict=True))
    size = block_size(path, lines, prompts, counts, block_tokens)
    if time_unit is None:
        _check_rate(path, times)
    elif times.max() > MAX_S * NS_PER_S // UNITS[time_unit]:
        raise TraceError(f"{path}, column timestamp: got more than {MAX_S} s with time_unit={time_unit}")
    offsets, texts = np.concatenate(([0], np.cumsum(counts))), Interning()
    texts.add(np.split(ids, offsets[1:-1]), size, prompts.tolist(), outputs.tolist())
    return TraceColumns(
        arrival_ns=times * UNITS[time_unit or "ms"],
        num_prompt_tokens=prompts,
        num_output_tokens=outputs,
        block_ids=ids,
        block_offsets=offsets,
        block_tokens=size,
        contents=texts.contents(),
    ).by_arrival()


def block_size(
    path: Path,
    lines: NDArray[np.int64],
    prompts: NDArray[np.int64],
    counts: NDArray[np.int64],
    block_tokens: int | None,
) -> int:
    """Tokens of a block, which was given or which a file's rows say.

    Raises:
        TraceError: a row has more or fewer ids, or the rows leave it open.
    """
    size = BLOCK_TOKENS if block_tokens is None else block_tokens
    _check_counts(path, lines, prompts, counts, size)
    if block_tokens is None:
        _check_size(path, prompts, counts)
    return size


def _fitting(prompts: NDArray[np.int64], counts: NDArray[np.int64]) -> list[int]:
    """Sizes of blocks that all rows have as many ids for as they need."""
    return [size for size in SIZES if (-(-prompts // size) == counts).all()]


def _check_counts(
    path: Path, lines: NDArray[np.int64], prompts: NDArray[np.int64], counts: NDArray[np.int64], size: int
) -> None:
    wanted = -(-prompts // size)
    if (counts == wanted).all():
        return
    row, fitting = int(np.argmax(counts != wanted)), _fitting(prompts, counts)
    allowed = f"one id for each block of {size} tokens: {wanted[row]} for {prompts[row]} tokens"
    if fitting:
        allowed += f"; all rows fit blocks of {_either(fitting)}: say so with block_tokens={fitting[0]}"
    raise bad_cell(path, int(lines[row]), "hash_ids", f"{counts[row]} ids", allowed)


def _check_size(path: Path, prompts: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
    """Refuse a file whose prompts are too short to tell the blocks' size."""
    fitting = _fitting(prompts, counts)
    if fitting != [BLOCK_TOKENS]:
        raise TraceError(
            f"{path} does not say how many tokens a block has: prompts of at most {prompts.max()} tokens fit blocks of "
            f"{_either(fitting)}; give block_tokens={BLOCK_TOKENS}, as in the published files, or what it is"
        )


def _check_rate(path: Path, times: NDArray[np.int64]) -> None:
    """Refuse a file whose requests come so fast that its times are rather seconds."""
    span_s = int(times.max() - times.min()) / NS_PER_S
    if span_s and (times.size - 1) / span_s > MOST_PER_S:
        raise TraceError(
            f"{path}, column timestamp: got {times.size} requests in {span_s:g} s, more than {MOST_PER_S} a second, if "
            "these are milliseconds; give time_unit=ms where they are, time_unit=s where they are seconds"
        )


def _either(sizes: Sequence[int]) -> str:
    return " or ".join([*map(str, sizes[:3]), *(["more"] if len(sizes) > 3 else [])])  # noqa: PLR2004


def _read_json_lines(path: Path) -> Iterator[Chunk]:
    with open_text(path) as text:
        rows = map(partial(_cells, path), json_objects(path, text))
        while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
            lines, cells = zip(*chunk, strict=True)
            yield Chunk(path, lines, dict(zip(KEYS, zip(*cells, strict=True), strict=True)))


def _cells(path: Path, row: tuple[int, dict[str, Any]]) -> tuple[int, tuple[Any, ...]]:
    line, values = row
    try:
        return line, tuple(values[key] for key in KEYS)
    except KeyError as error:
        raise TraceError(f"{path}, line {line}: {unknown('column', error.args[0], values)}") from None


def _arrays(chunk: Chunk) -> tuple[NDArray[np.int64], ...]:
    times = chunk.convert("timestamp", MILLISECONDS)
    prompts = chunk.convert("input_length", json_integers(1))
    outputs = chunk.convert("output_length", json_integers(0))
    blocks = chunk.columns["hash_ids"]
    if set(map(type, blocks)) != {list}:
        row = next(i for i, ids in enumerate(blocks) if type(ids) is not list)
        raise bad_cell(chunk.path, chunk.lines[row], "hash_ids", blocks[row], "a list of block ids")
    counts = np.fromiter(map(len, blocks), dtype=np.int64, count=len(blocks))
    return np.array(chunk.lines), times, prompts, outputs, counts, _flat_ids(chunk, blocks)


def _flat_ids(chunk: Chunk, blocks: Sequence[list[object]]) -> NDArray[np.int64]:
    ids = json_integers(0, 2**63 - 1)
    lines = [line for line, row in zip(chunk.lines, blocks, strict=True) for _ in row]
    flat = [block for row in blocks for block in row]
    return Chunk(chunk.path, lines, {"hash_ids": flat}).convert("hash_ids", ids)
