"""How long prompts and outputs are: distributions that draw whole numbers of tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kvbench.checks import check_has, check_int, check_number
from kvbench.workload.trace_file import read_csv
from kvbench.workload.trace_values import MAX_TOKENS, whole_numbers

MAX_RANKS = 10_000_000
MAX_TURNS = 100_000
KINDS = "a length distribution (ConstantLength, Uniform, Lognormal, Zipf, Empirical)"


class Lengths(Protocol):
    """What every length distribution can do."""

    def draw(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw `size` lengths, each 1 token or more. The first n of a longer draw are those of a draw of n."""
        ...


def check_lengths(name: str, value: object) -> None:
    """Refuse what is not a length distribution.

    Raises:
        ValueError: it has no `draw`.
    """
    check_has(name, value, "draw", KINDS)


def check_counts(name: str, value: object) -> None:
    """Refuse what counts nothing: neither a positive integer nor a distribution.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, int):
        check_int(name, value, 1, MAX_TURNS)
    else:
        check_lengths(name, value)


def counts_of(value: "Lengths | int") -> "Lengths":
    """A count as a distribution, whose lengths count."""
    return ConstantLength(tokens=value) if isinstance(value, int) else value


@dataclass(frozen=True, kw_only=True)
class ConstantLength(Lengths):
    """The same length always.

    Args:
        tokens: the length, >= 1.
    Raises:
        ValueError: it is not a positive integer.
    """

    tokens: int = 160

    def __post_init__(self) -> None:
        check_int("tokens", self.tokens, 1, MAX_TOKENS)

    def draw(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Repeat the length; `rng` is not used."""
        return np.full(size, self.tokens, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Uniform(Lengths):
    """Every length of a range alike.

    Args:
        low: the shortest, >= 1.
        high: the longest, included, >= low.
    Raises:
        ValueError: a bound is not a positive integer, or they are the wrong way round.
    """

    low: int = 1
    high: int = 512

    def __post_init__(self) -> None:
        _check_range(self.low, self.high)

    def draw(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw from the range, both ends included."""
        return rng.integers(self.low, self.high, size=size, endpoint=True, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Lognormal(Lengths):
    """A long tail: exp of a normal variable, rounded, and clipped to a range.

    Clipped, not drawn again: what would lie beyond a bound is put on it. Before clipping the mean is
    median · exp(sigma² ÷ 2).

    Args:
        median: the median in tokens, between low and high; it needs not be whole.
        sigma: standard deviation of the length's natural logarithm, >= 0, at most 20.
        low: the shortest, >= 1.
        high: the longest, included, >= low.
    Raises:
        ValueError: a number is out of its range.
    """

    median: float = 160
    sigma: float = 0.7
    low: int = 1
    high: int = MAX_TOKENS

    def __post_init__(self) -> None:
        _check_range(self.low, self.high)
        check_number("median", self.median, self.low, self.high)
        check_number("sigma", self.sigma, 0, 20)

    def draw(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw, round to the nearest integer, clip."""
        lengths = self.median * np.exp(self.sigma * rng.standard_normal(size))
        return np.clip(np.rint(lengths), self.low, self.high).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Zipf(Lengths):
    """Short lengths most, by rank: P(length) is proportional to (length − low + 1)^−exponent.

    Args:
        exponent: 0 is uniform; larger is steeper, at most 100.
        low: the shortest and likeliest, >= 1.
        high: the longest, included; at most 10,000,000 lengths in all.
    Raises:
        ValueError: a number is out of its range.
    """

    exponent: float = 1.0
    low: int = 1
    high: int = 512

    def __post_init__(self) -> None:
        check_number("exponent", self.exponent, 0, 100)
        _check_range(self.low, self.high)
        if self.high - self.low >= MAX_RANKS:
            raise ValueError(f"low to high is at most {MAX_RANKS} lengths, got {self.low} to {self.high}")

    def draw(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Invert the cumulative probability of the ranks at uniform numbers."""
        ranks = np.arange(1, self.high - self.low + 2, dtype=np.float64)
        cumulative = np.cumsum(ranks**-self.exponent)
        # random() is at most 1 − 2⁻⁵³, and a product with that stays below the total: no rank too far.
        drawn = np.searchsorted(cumulative, rng.random(size) * cumulative[-1], side="right")
        lengths: NDArray[np.int64] = drawn.astype(np.int64) + self.low
        return lengths


@dataclass(frozen=True, kw_only=True)
class Empirical(Lengths):
    """Lengths as they were observed: drawn with replacement from a column of a CSV file.

    Args:
        path: the file, plain or gzip; relative to the working directory.
        column: the column's name in the header; its values are whole numbers, >= 1.
    Raises:
        TraceMissing: there is no such file; raised by `draw`, as the next.
        TraceError: the file cannot be read, has no such column, or has a bad value.
    """

    path: str
    column: str

    def draw(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Read the column, then draw rows, each alike."""
        path = Path(self.path).expanduser()
        lengths = np.concatenate([c.convert(self.column, whole_numbers(1)) for c in read_csv(path, [self.column])])
        return lengths[rng.integers(0, lengths.size, size=size)]


def _check_range(low: int, high: int) -> None:
    check_int("low", low, 1, MAX_TOKENS)
    check_int("high", high, 1, MAX_TOKENS)
    if high < low:
        raise ValueError(f"high is at least low, got low {low} and high {high}")
