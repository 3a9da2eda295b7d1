"""What accelerators exchange: measured sums by their size, and all else by the same latency and bandwidth."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from kvbench.model.hardware import Hardware, check_curve
from kvbench.timing.rooflines import Seconds

Curves = Mapping[int, Sequence[Sequence[float]]]
"""Points of bytes and seconds, by how many accelerators."""
FEWEST = 2
KINDS_OF_EXCHANGE = ("all_reduce", "all_gather", "all_to_all", "send")


def share_of(kind: str, ranks: int) -> float:
    """Bytes that pass each accelerator's links, of those of the whole tensor, as rings do it."""
    if kind == "send":
        return 1.0
    return (2 if kind == "all_reduce" else 1) * (ranks - 1) / ranks


def curves_from(where: str, given: object) -> Curves:
    """Points from a file.

    Raises:
        ValueError: it is no mapping from numbers of accelerators, from 2, to points of bytes and seconds.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is a mapping from numbers of accelerators to points, got {given!r}")
    found: dict[int, Sequence[Sequence[float]]] = {}
    for ranks, points in given.items():
        if not str(ranks).isdecimal() or int(ranks) < FEWEST:
            raise ValueError(f"{where}: a number of accelerators is at least {FEWEST}, got {ranks!r}")
        check_curve(f"{where}.{ranks}", points)
        if min(*points[0]) <= 0:
            raise ValueError(f"{where}.{ranks}: bytes and seconds are above 0, got {list(points[0])}")
        found[int(ranks)] = points
    return found


def exchange_s(kind: str, num_bytes: ArrayLike, ranks: int, hardware: Hardware, curves: Curves) -> Seconds:
    """An exchange by measured sums of the nearest number of accelerators, or by the machine's links alone.

    Beyond what was measured, and for other kinds and numbers, bytes take as long for each that passes a link.
    """
    moved, share = np.asarray(num_bytes, np.float64), share_of(kind, ranks)
    if not curves:
        link_s = hardware.needed("link_s", "what accelerators say to each other")
        per_s = hardware.needed("link_bytes_per_s", "what accelerators say to each other")
        return np.asarray(link_s + moved * share / per_s, np.float64)
    nearest = min(curves, key=lambda each: (abs(np.log(each / ranks)), each))
    sizes, seconds = np.array(curves[nearest], np.float64).T
    found = np.exp(np.interp(np.log(np.maximum(moved, sizes[0])), np.log(sizes), np.log(seconds)))
    found = np.where(moved > sizes[-1], seconds[-1] + (moved - sizes[-1]) * _byte_s(sizes, seconds), found)
    scale = share / share_of("all_reduce", nearest)
    return np.asarray(seconds[0] + (found - seconds[0]) * scale, np.float64)


def _byte_s(sizes: Seconds, seconds: Seconds) -> float:
    """Of a further byte, beyond the most."""
    return float((seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2]))
