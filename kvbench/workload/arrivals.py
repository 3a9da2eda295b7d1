"""When requests arrive: processes that draw times in nanoseconds after the start."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kvbench.checks import check_has, check_int, check_number
from kvbench.workload.request import NS_PER_S

MAX_REQUESTS = 1_000_000_000
RATES_PER_S = (1e-9, 1e9)
PERIODS_S = (1e-9, 1e12)
MOST_CLIENTS = 1_000_000
KINDS = "an arrival process (AllAtOnce, ConstantRate, Poisson, Gamma, Sinusoidal, ClosedLoop)"


class Arrivals(Protocol):
    """What every arrival process can do."""

    def times_ns(self, num_requests: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw arrival times, non-decreasing, in nanoseconds after the start.

        The first n times of a longer draw are those of a draw of n.
        """
        ...


def clients_of(arrivals: Arrivals) -> int | None:
    """Clients that each send their next request when their last one has ended; None where times are drawn."""
    return arrivals.concurrency if isinstance(arrivals, ClosedLoop) else None


def check_arrivals(name: str, value: object) -> None:
    """Refuse what is not an arrival process.

    Raises:
        ValueError: it has no `times_ns`.
    """
    check_has(name, value, "times_ns", KINDS)


@dataclass(frozen=True, kw_only=True)
class AllAtOnce(Arrivals):
    """Every request arrives at the start: offline work."""

    def times_ns(self, num_requests: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """As many zeros; `rng` is not used."""
        _check_count(num_requests)
        return np.zeros(num_requests, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class ClosedLoop(Arrivals):
    """Clients that wait for their answers: each sends its next request when its last one has ended.

    The first requests are sent at the start, one by each client; each other one, in their order, by the client that is
    free first, and waits from then on. So no more requests are under way than there are clients.

    Args:
        concurrency: clients, > 0, at most 1,000,000.
    Raises:
        ValueError: it is no such number.
    """

    concurrency: int = 32

    def __post_init__(self) -> None:
        check_int("concurrency", self.concurrency, 1, MOST_CLIENTS)

    def times_ns(self, num_requests: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """The earliest that each may be sent: as many zeros; `rng` is not used."""
        _check_count(num_requests)
        return np.zeros(num_requests, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class ConstantRate(Arrivals):
    """Request i arrives at i ÷ rate: even gaps, the first at 0.

    Args:
        rate_per_s: requests a second, from 1e-9 to 1e9.
    Raises:
        ValueError: the rate is not such a number.
    """

    rate_per_s: float = 2.0

    def __post_init__(self) -> None:
        check_number("rate_per_s", self.rate_per_s, *RATES_PER_S)

    def times_ns(self, num_requests: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Multiples of the gap; `rng` is not used."""
        _check_count(num_requests)
        return _to_ns(np.arange(num_requests, dtype=np.float64) / self.rate_per_s)


@dataclass(frozen=True, kw_only=True)
class Poisson(Arrivals):
    """Independent users: exponential gaps, the first of them before the first request.

    Args:
        rate_per_s: mean requests a second, from 1e-9 to 1e9.
    Raises:
        ValueError: the rate is not such a number.
    """

    rate_per_s: float = 2.0

    def __post_init__(self) -> None:
        check_number("rate_per_s", self.rate_per_s, *RATES_PER_S)

    def times_ns(self, num_requests: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Running sums of exponential gaps."""
        _check_count(num_requests)
        return _to_ns(np.cumsum(rng.standard_exponential(num_requests)) / self.rate_per_s)


@dataclass(frozen=True, kw_only=True)
class Gamma(Arrivals):
    """Bursts: gamma-distributed gaps, independent of each other.

    With a cv of 1 it is Poisson; above 1 requests come in bursts, below 1 more evenly.

    Args:
        rate_per_s: mean requests a second, from 1e-9 to 1e9.
        cv: coefficient of variation of the gaps (standard deviation ÷ mean), > 0, at most 100.
    Raises:
        ValueError: a number is out of its range.
    """

    rate_per_s: float = 2.0
    cv: float = 3.0

    def __post_init__(self) -> None:
        check_number("rate_per_s", self.rate_per_s, *RATES_PER_S)
        check_number("cv", self.cv, 0, 100, above=True)

    def times_ns(self, num_requests: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Running sums of gaps of shape 1 ÷ cv² and mean 1 ÷ rate."""
        _check_count(num_requests)
        shape = 1 / self.cv**2
        gaps = rng.standard_gamma(shape, num_requests)
        return _to_ns(np.cumsum(gaps) / shape / self.rate_per_s)


@dataclass(frozen=True, kw_only=True)
class Sinusoidal(Arrivals):
    """A day's rhythm: a Poisson process with the rate r · (1 + a · sin(2πt ÷ period)).

    Args:
        rate_per_s: r, mean requests a second over a period, > 0.
        amplitude: a, from 0 (plain Poisson) to 1 (the rate falls to 0 once a period).
        period_s: seconds from one peak to the next, from 1e-9 to 1e12.
    Raises:
        ValueError: a number is out of its range.
    Source: the time change of a Poisson process: unit-rate arrivals, mapped through the inverse of the
        cumulative rate, which is exact.
    Departs: none.
    """

    rate_per_s: float = 2.0
    amplitude: float = 0.9
    period_s: float = 10.0

    def __post_init__(self) -> None:
        check_number("rate_per_s", self.rate_per_s, *RATES_PER_S)
        check_number("amplitude", self.amplitude, 0, 1)
        check_number("period_s", self.period_s, *PERIODS_S)

    def cumulative(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean number of arrivals up to each time: r · (t + a · period ÷ 2π · (1 − cos(2πt ÷ period)))."""
        swing_s = self.amplitude * self.period_s / (2 * math.pi)
        return self.rate_per_s * (times_s + swing_s * (1 - np.cos(2 * math.pi * times_s / self.period_s)))

    def times_ns(self, num_requests: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Invert the cumulative rate at unit-rate arrivals, by bisection."""
        _check_count(num_requests)
        counts = np.cumsum(rng.standard_exponential(num_requests))
        # The cumulative rate lies between r·t and r·t + r·a·period/π, so that every root is in this bracket.
        high = counts / self.rate_per_s
        low = np.maximum(high - self.amplitude * self.period_s / math.pi, 0.0)
        for _ in range(64):
            middle = (low + high) / 2
            late = self.cumulative(middle) >= counts
            high = np.where(late, middle, high)
            low = np.where(late, low, middle)
        # Where the rate touches 0 rounding may swap two roots by less than their error.
        return np.maximum.accumulate(_to_ns(high))


def _check_count(num_requests: int) -> None:
    check_int("num_requests", num_requests, 0, MAX_REQUESTS)


def _to_ns(times_s: NDArray[np.float64]) -> NDArray[np.int64]:
    times = np.rint(times_s * NS_PER_S)
    if times.size and not times[-1] < np.iinfo(np.int64).max:
        raise ValueError(
            f"the last of {times.size} requests arrives {times_s[-1]:.3g} s after the start; "
            "at most 9.2e9 s (292 years) are allowed: raise rate_per_s"
        )
    return times.astype(np.int64)
