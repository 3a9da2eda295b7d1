"""Tables of measured kernels: a row is one kernel on one accelerator; and which rows of them fit, and which judge."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kvbench.checks import check_one_of
from kvbench.files import NotRegular, check_regular
from kvbench.messages import unknown

ATTENTION = ("batch", "new_tokens", "context_tokens", "num_heads", "num_kv_heads", "head_dim", "window")
NEEDED = {
    "gemm": ("m", "n", "k"),
    "moe": ("m", "num_experts", "top_k", "hidden", "intermediate"),
    "elementwise": ("m", "bytes"),
    "prefill_attention": ATTENTION,
    "decode_attention": ATTENTION,
    "all_reduce": ("num_gpus", "bytes"),
}
"""Operations, and the columns that say what each is of."""
SHAPE = tuple(dict.fromkeys(name for names in NEEDED.values() for name in names))
TEXTS = ("op", "dtype", "kv_dtype", "source", "detail")
ALWAYS = ("op", "dtype", "seconds")
HELD_OUT_OF = 5
"""One shape in so many judges a fit and takes no part in it."""
DIGEST_DIGITS = 8
MOST_WHOLE = 2**53
SUFFIXES = (".parquet", ".csv")

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


class TableName(NamedTuple):
    """What a table's name says that it was measured on.

    Args:
        hardware: as conf/hardware calls it.
        engine: whose kernels they are.
    """

    hardware: str
    engine: str


def named_of(path: Path) -> TableName | None:
    """The hardware and the engine that a name like h100_vllm.parquet says; None where it says none."""
    hardware, _, engine = path.stem.rpartition("_")
    return TableName(hardware, engine) if hardware and engine else None


def read_kernels(path: Path) -> pd.DataFrame:
    """A table of measured kernels.

    Args:
        path: a Parquet or a CSV file, of the columns in NEEDED for the operations that it has, and ALWAYS.
    Returns:
        A row a kernel, in the file's order: the columns of SHAPE whole numbers, 0 where one does not apply, those of
        TEXTS text, `seconds` a float.
    Raises:
        ValueError: there is no such file, it cannot be read, has no rows, an unknown operation, lacks a column, or a
            value is not allowed.
    """
    return kernels_in(_opened(path), path)


def kernels_in(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The same of a table that is read already.

    Args:
        frame: with its columns as they are in a file.
        path: what messages call it.
    Raises:
        ValueError: as `read_kernels`.
    """
    missing = [name for name in ALWAYS if name not in frame]
    if missing:
        raise ValueError(
            f"{path} is no table of kernels: it lacks {', '.join(missing)}; it has {', '.join(map(str, frame))}"
        )
    if frame.empty:
        raise ValueError(f"{path} has no rows")
    texts = {name: frame[name].astype("string").fillna("") for name in TEXTS if name in frame}
    found = pd.DataFrame({name: texts.get(name, "") for name in TEXTS}, index=frame.index)
    for op in found["op"].unique():
        try:
            check_one_of("operation", str(op), NEEDED)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        lacking = [name for name in NEEDED[op] if name not in frame]
        if lacking:
            raise ValueError(f"{path} has rows of {op}, but no column {', '.join(lacking)}")
    for name in SHAPE:
        found[name] = _whole(path, frame, name, found["op"])
    found["seconds"] = _checked(path, "seconds", _numbers(frame["seconds"]), lambda values: values > 0, "above 0")
    return found


def is_held_out(frame: pd.DataFrame) -> Flags:
    """Which rows of a table judge and fit nothing: by their shape alone, the same in every table and dtype.

    Args:
        frame: as `read_kernels` gives it. A row's shape is the operation and that operation's columns in NEEDED.
    """
    return _by_operation(frame, is_held_out_by)


def judges_intervals(frame: pd.DataFrame) -> Flags:
    """Which of these say whether intervals hold what they promise: every other. The rest say how wide intervals are."""
    return _by_operation(frame, judges_intervals_by)


def is_held_out_by(frame: pd.DataFrame, columns: Sequence[str]) -> Flags:
    """The same as `is_held_out` by columns that are named: values joined by commas; of their SHA-256 the first eight
    hexadecimal digits, modulo 5, are 0. Every other is that whose ninth digit is odd."""
    return _of_shapes(frame, columns, _held)


def judges_intervals_by(frame: pd.DataFrame, columns: Sequence[str]) -> Flags:
    """The same as `judges_intervals` by columns that are named."""
    return _of_shapes(frame, columns, lambda digits: _held(digits) and _odd(digits))


def _held(digits: str) -> bool:
    return int(digits[:DIGEST_DIGITS], 16) % HELD_OUT_OF == 0


def _odd(digits: str) -> bool:
    return int(digits[DIGEST_DIGITS], 16) % 2 == 1


def _by_operation(frame: pd.DataFrame, told: Callable[[pd.DataFrame, Sequence[str]], Flags]) -> Flags:
    found = np.zeros(len(frame), np.bool_)
    for op in frame["op"].unique():
        own = (frame["op"] == op).to_numpy()
        found[own] = told(frame[own], ("op", *NEEDED[op]))
    return found


def _of_shapes(frame: pd.DataFrame, columns: Sequence[str], told: Callable[[str], bool]) -> Flags:
    """What is told of the digits of each shape's hash."""
    rows = zip(*(frame[name].astype(str) for name in columns), strict=True)
    codes, shapes = pd.factorize(np.array([",".join(row) for row in rows], object))
    digests = (hashlib.sha256(shape.encode()).hexdigest() for shape in shapes)
    held = np.fromiter(map(told, digests), np.bool_, len(shapes))
    found: Flags = held[codes]
    return found


def _opened(path: Path) -> pd.DataFrame:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: {unknown('kind of table', path.suffix, SUFFIXES)}")
    try:
        check_regular(path)
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except NotRegular as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except OSError as error:  # pyarrow's own errors of a broken file are of these, too
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a {path.suffix[1:]} file: {error}") from None


def _whole(path: Path, frame: pd.DataFrame, name: str, ops: "pd.Series[str]") -> NDArray[np.int64]:
    """A column of whole numbers, 0 where it does not apply."""
    if name not in frame:
        return np.zeros(len(frame), np.int64)
    needed = ops.isin([op for op, names in NEEDED.items() if name in names]).to_numpy()
    values = np.where(frame[name].isna() & ~needed, 0.0, _numbers(frame[name]))

    def is_whole(numbers: Numbers) -> Flags:
        return np.asarray((numbers >= 0) & (numbers <= MOST_WHOLE) & (numbers == np.floor(numbers)))

    return _checked(path, name, values, is_whole, "a whole number of at least 0").astype(np.int64)


def _numbers(column: "pd.Series[float]") -> Numbers:
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)


def _checked(
    path: Path, name: str, values: NDArray[np.float64], is_allowed: Callable[[Numbers], Flags], allowed: str
) -> Numbers:
    bad = np.flatnonzero(~(np.isfinite(values) & is_allowed(values)))
    if bad.size:
        raise ValueError(f"{path}: row {bad[0] + 1}: {name} is {allowed}, got {values[bad[0]]:g}")
    return values
