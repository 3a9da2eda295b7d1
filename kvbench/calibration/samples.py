"""Seconds that were measured, by what was done and at which size, and the curves that they make."""

from collections.abc import Sequence
from statistics import median

DIGITS = 4


class Samples:
    """Collects seconds; a curve's point is the median of its size's samples."""

    def __init__(self) -> None:
        self._seconds: dict[str, dict[int, list[float]]] = {}

    def add(self, name: str, size: int, seconds: float) -> None:
        """Keep one measurement.

        Args:
            name: of the curve.
            size: in the curve's unit.
            seconds: what it took; below 0, by a difference of two measurements, it counts as 0.
        """
        self._seconds.setdefault(name, {}).setdefault(size, []).append(max(seconds, 0.0))

    def curves(self) -> dict[str, list[list[float]]]:
        """Points of size and seconds by curve: sizes grow, and what is larger takes no less."""
        return {name: _points(by_size) for name, by_size in self._seconds.items()}


def _points(by_size: dict[int, list[float]]) -> list[list[float]]:
    sizes = sorted(by_size)
    seconds = growing([median(by_size[size]) for size in sizes])
    return [[size, float(f"{each:.{DIGITS}g}")] for size, each in zip(sizes, seconds, strict=True)]


def growing(values: Sequence[float]) -> list[float]:
    """The nearest values, by squares, of which none is below the one before.

    Source: Ayer et al. 1955, doi:10.1214/aoms/1177728423 (pool adjacent violators).
    """
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (mean, count), (last, num_last) = pools[-2:]
            pools[-2:] = [((mean * count + last * num_last) / (count + num_last), count + num_last)]
    return [mean for mean, count in pools for _ in range(count)]
