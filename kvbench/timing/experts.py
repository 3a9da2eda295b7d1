"""Routed experts: those that tokens touch are read, and each works on rows of tiles that are not full."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from kvbench.timing.corrections import Corrections
from kvbench.timing.memory import read_s
from kvbench.timing.operands import SIXTEEN_BITS, Operand
from kvbench.timing.rooflines import Peaks, Seconds, knee
from kvbench.timing.shapes import ExpertShape

MATRICES = 3
KNOTS = ((1 / 16, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0), (128.0, 512.0, 2048.0, 8192.0), (8.0, 32.0, 128.0, 256.0))
"""Rows an expert in the mean, an expert's width, and experts, at which corrections are."""


class ExpertFigures(NamedTuple):
    """What a fit says of experts of a dtype; those of a machine that nobody measured are typical.

    Args:
        floor_s: of a layer's experts, at least: routing, sorting tokens, two products and a sum.
        share: of the memory's bandwidth.
        cache_share: the same ratio, of bytes that stay in the accelerator's cache.
        cache_bytes: that stay there, when experts are called again and again.
        compute_share: of the peak rate.
        sharpness: of the knee between bytes and operations, whose power is 1 more.
        pad_rows: that an expert computes beyond its own, its last tile being not full.
        row_weight: of bytes of tokens' numbers, as against those of weights.
    """

    floor_s: float = 3e-5
    share: float = 0.85
    cache_share: float = 2.0
    cache_bytes: float = 5e6
    compute_share: float = 0.5
    sharpness: float = 0.7
    pad_rows: float = 12.0
    row_weight: float = 2.0


def touched(num_tokens: ArrayLike, shape: ExpertShape) -> Seconds:
    """Experts that some token takes, in the mean, when each takes any with the same chance."""
    chance = min(shape.top_k / shape.num_experts, 1.0)
    return np.asarray(shape.num_experts * (1 - (1 - chance) ** np.asarray(num_tokens, np.float64)), np.float64)


def experts_s(
    num_tokens: ArrayLike,
    num_touched: ArrayLike,
    shape: ExpertShape,
    operand: Operand,
    peaks: Peaks,
    figures: ExpertFigures,
    corrections: Corrections | None,
) -> Seconds:
    """A layer's experts, for so many tokens.

    Args:
        num_tokens: of the iteration.
        num_touched: experts that they take, all together.
        shape: of the experts.
        operand: what is multiplied.
        peaks: of the machine, for that.
        figures: of a fit.
        corrections: by rows an expert, its width, and experts.
    """
    rows, hit = np.asarray(num_tokens, np.float64) * shape.top_k, np.asarray(num_touched, np.float64)
    matrices = float(MATRICES * shape.hidden * shape.intermediate)
    of_rows = rows * (2 * shape.hidden + MATRICES * shape.intermediate) * SIXTEEN_BITS * figures.row_weight
    moved = hit * matrices * operand.weight_bytes + of_rows
    reading_s = read_s(moved, peaks.memory_bytes_per_s, figures.share, figures.cache_share, figures.cache_bytes)
    computing_s = 2 * matrices * (rows + hit * figures.pad_rows) / (peaks.flops_per_s * figures.compute_share)
    found: Seconds = figures.floor_s + knee(reading_s, computing_s, 1 + figures.sharpness)
    if corrections is None:
        return found
    return found * corrections.factor(rows / shape.num_experts, shape.intermediate, shape.num_experts)
