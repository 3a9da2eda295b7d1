"""What a search is over: dimensions named by configuration's keys, some of which matter only where another is so."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from kvbench.tried import Tried, Value, among

Deployment = Mapping[str, Value]
"""A value of each dimension that matters, by key."""


class Suggesting(Protocol):
    """What suggests values, as a trial of Optuna's does."""

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        """One of them."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number."""


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """A key, and what is tried of it.

    Args:
        key: of the configuration, or a group.
        tried: a range or choices, of which no two are equal.
        of: another dimension's key, for which this one matters only at some of its choices; "": it always does.
        at: those choices.
    Raises:
        ValueError: a choice stands twice.
    """

    key: str
    tried: Tried
    of: str = ""
    at: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        for number, value in enumerate(self.tried.choices):
            if among(value, self.tried.choices[:number]):
                raise ValueError(f"{self.key}: {value!r} stands twice")

    def matters(self, chosen: Deployment) -> bool:
        """Whether it does, by what was chosen of those before."""
        return not self.of or (self.of in chosen and among(chosen[self.of], self.at))

    def suggested(self, trial: Suggesting) -> Value:
        """A value; where there is but one, none is asked for."""
        tried = self.tried
        if tried.choices:
            return tried.choices[0] if len(tried.choices) == 1 else trial.suggest_categorical(self.key, tried.choices)
        low, high = tried.ends
        if tried.is_whole:
            return trial.suggest_int(self.key, int(low), int(high), log=tried.log)
        return trial.suggest_float(self.key, low, high, log=tried.log)


@dataclass(frozen=True)
class Space:
    """Deployments to choose from.

    Args:
        dimensions: each behind the one that it depends on.
    Raises:
        ValueError: there is none, a key stands twice, or one depends on what is not before it.
    """

    dimensions: tuple[Dimension, ...]

    def __post_init__(self) -> None:
        before: dict[str, Dimension] = {}
        for each in self.dimensions:
            if each.key in before:
                raise ValueError(f"{each.key} is searched twice")
            if each.of and (each.of not in before or not set(each.at) <= set(before[each.of].tried.choices)):
                raise ValueError(f"{each.key} depends on {each.of}, which comes before it and has {each.at!r}")
            before[each.key] = each
        if not before:
            raise ValueError("there is nothing to search")

    @property
    def keys(self) -> tuple[str, ...]:
        """Of all dimensions."""
        return tuple(each.key for each in self.dimensions)

    @cached_property
    def size(self) -> int | None:
        """Deployments in it; None: a range of numbers has no end of them."""
        return self._size({}, self.dimensions)

    def _size(self, chosen: Deployment, rest: Sequence[Dimension]) -> int | None:
        if not rest:
            return 1
        first, *others = rest
        if not first.matters(chosen):
            return self._size(chosen, others)
        values = first.tried.values
        if values is None:
            return None
        if any(each.of == first.key for each in others):
            sizes = [self._size({**chosen, first.key: value}, others) for value in values]
            return None if None in sizes else sum(size or 0 for size in sizes)
        below = self._size(chosen, others)
        return None if below is None else len(values) * below

    def __iter__(self) -> Iterator[Deployment]:
        """All, in order of the dimensions, of which the last changes fastest.

        Raises:
            ValueError: they have no end.
        """
        if self.size is None:
            raise ValueError("a range of numbers has no end of deployments")
        return self._all({}, self.dimensions)

    def _all(self, chosen: Deployment, rest: Sequence[Dimension]) -> Iterator[Deployment]:
        if not rest:
            yield chosen
            return
        first, *others = rest
        values = first.tried.values if first.matters(chosen) else None
        if values is None:
            yield from self._all(chosen, others)
            return
        for value in values:
            yield from self._all({**chosen, first.key: value}, others)

    def __contains__(self, deployment: object) -> bool:
        if not isinstance(deployment, Mapping):
            return False
        chosen: dict[str, Value] = {}
        for each in self.dimensions:
            if each.matters(chosen):
                if each.key not in deployment or deployment[each.key] not in each.tried:
                    return False
                chosen[each.key] = deployment[each.key]
        return len(chosen) == len(deployment)

    def suggested(self, trial: Suggesting) -> Deployment:
        """One that something suggests."""
        chosen: dict[str, Value] = {}
        for each in self.dimensions:
            if each.matters(chosen):
                chosen[each.key] = each.suggested(trial)
        return chosen

    def first(self, given: Deployment) -> Deployment:
        """The one of first values, but for what is given."""
        chosen: dict[str, Value] = {}
        for each in self.dimensions:
            if each.matters(chosen):
                chosen[each.key] = given.get(each.key, (each.tried.values or each.tried.ends)[0])
        return chosen

    def drawn(self, rng: np.random.Generator) -> Deployment:
        """One at random."""
        return self.suggested(_Drawing(rng))


@dataclass(frozen=True)
class _Drawing:
    """Suggests at random.

    Args:
        rng: draws.
    """

    rng: np.random.Generator

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        return choices[int(self.rng.integers(len(choices)))]

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        if not log:
            return int(self.rng.integers(low, high + 1))
        return min(max(round(self.suggest_float(name, low - 0.5, high + 0.5, log=True)), low), high)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        if not log:
            return float(self.rng.uniform(low, high))
        return float(min(max(np.exp(self.rng.uniform(np.log(low), np.log(high))), low), high))
