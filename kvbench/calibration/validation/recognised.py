"""What a file of measurements is, by what is in it."""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from kvbench.calibration.printed.rows import COLUMNS as PRINTED
from kvbench.calibration.validation.exports.aiperf import is_aiperf, is_aiperf_table
from kvbench.calibration.validation.exports.bench import is_bench
from kvbench.calibration.validation.exports.guidellm import is_guidellm
from kvbench.calibration.validation.mixed import COLUMNS as MIXED
from kvbench.calibration.validation.recordings import GZIP, is_recording
from kvbench.files import check_regular
from kvbench.messages import cut

LINES, KERNELS, MIXED_CALLS = "printed lines", "kernels", "mixed attention"
SERVING, LOG = "end-to-end measurements", "requests"
BENCH, GUIDELLM, AIPERF, AIPERF_TABLE = "bench", "GuideLLM", "AIPerf", "AIPerf's table"
RECORDING = "a scheduler's steps"
PARQUET = b"PAR1"
MOST_SHOWN = 12


class Opening(NamedTuple):
    """The beginning of a file, as far as it tells what it is.

    Args:
        columns: of a table; () where it is none.
        document: of JSON; None where it is none; of a file of a document a line, the first.
    """

    columns: tuple[str, ...] = ()
    document: Any = None


FORMS: dict[str, Callable[[Opening], bool]] = {
    LINES: lambda opening: {"available_kv_gib", "num_tokens", "engine"} <= set(opening.columns),
    MIXED_CALLS: lambda opening: {"prefill_tokens", "decode_sequences"} <= set(opening.columns),
    KERNELS: lambda opening: {"op", "seconds"} <= set(opening.columns),
    SERVING: lambda opening: {"input_tokens", "output_tokens", "engine"} <= set(opening.columns),
    BENCH: lambda opening: is_bench(opening.document),
    GUIDELLM: lambda opening: is_guidellm(opening.document),
    AIPERF: lambda opening: is_aiperf(opening.document),
    AIPERF_TABLE: lambda opening: is_aiperf_table(opening.columns),
    RECORDING: lambda opening: is_recording(opening.document),
    LOG: lambda opening: {"arrival_s", "input_tokens", "ttft_s"} <= set(opening.columns),
}
"""What is read, and how it is known."""
SAID = f"lines that engines printed ({', '.join(PRINTED[:3])}, …), kernels (op, dtype, seconds, …), calls of mixed "
SAID += f"attention ({', '.join(MIXED[:3])}, …), end-to-end measurements (model, hardware, engine, input_tokens, "
SAID += "output_tokens, concurrency, ttft_ms, …), requests (request_id, arrival_s, input_tokens, ttft_s, …), what vllm "
SAID += "bench serve, SGLang's bench_serving, GuideLLM, AIPerf or GenAI-Perf wrote, a scheduler's steps (num_blocks, "
SAID += "block_size, requests, steps, …; gzipped or not)"


def form_of(path: Path) -> str:
    """Which of FORMS a file is.

    Raises:
        ValueError: it cannot be read, or is none of them.
    """
    opening = opened(path)
    for name, is_form in FORMS.items():
        if is_form(opening):
            return name
    has = ", ".join(cut(name, 30) for name in opening.columns[:MOST_SHOWN])
    if isinstance(opening.document, dict):
        has = ", ".join(cut(name, 30) for name in list(opening.document)[:MOST_SHOWN])
    raise ValueError(f"{path}: none of the forms that are read: {SAID}; it has {has or 'nothing'}")


def opened(path: Path) -> Opening:
    """The beginning of a file.

    Raises:
        ValueError: it cannot be read.
    """
    with _reading(path):
        check_regular(path)
        if _is_parquet(path):
            return Opening(columns=tuple(map(str, pd.read_parquet(path).columns)))
        text = _text(path).lstrip()
        if text[:1] not in ("{", "["):
            return Opening(columns=tuple(next(csv.reader(text.splitlines()[:1]), ())))
    try:
        document = json.JSONDecoder().raw_decode(text)[0]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: no JSON: {error.msg}") from error
    return Opening(document=document[0] if isinstance(document, list) and document else document)


def read_table(path: Path) -> pd.DataFrame:
    """A table as it stands, Parquet or CSV.

    Raises:
        ValueError: it cannot be read.
    """
    with _reading(path):
        return pd.read_parquet(path) if _is_parquet(path) else pd.read_csv(path, encoding="utf-8-sig")


def read_text(path: Path) -> str:
    """A file's text, of UTF-8.

    Raises:
        ValueError: it cannot be read.
    """
    with _reading(path):
        return _text(path)


def read_documents(path: Path) -> list[Any]:
    """The JSON documents of a file, one after another; those of a list, where there is one alone.

    Raises:
        ValueError: it cannot be read, or something in it is no JSON.
    """
    text, at, found = read_text(path), 0, []
    decoder = json.JSONDecoder()
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        try:
            document, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {error.lineno}: no JSON: {error.msg}") from error
        found.append(document)
    return found[0] if len(found) == 1 and isinstance(found[0], list) else found


def _text(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if data.startswith(GZIP) else data).decode("utf-8-sig")


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(PARQUET)) == PARQUET


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, csv.Error, zlib.error) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(f"{path}: it cannot be read: {said}") from error
