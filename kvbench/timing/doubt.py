"""How far modelled times may be from a machine's: by kind of work, as quantiles of what was measured over what is told.

A draw is a factor a kind of work that holds for a whole simulation: residuals of single kernels, drawn for each by
itself, would cancel in a sum of thousands, and what makes a fit wrong for one shape makes it wrong in every step.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvbench.checks import check_number
from kvbench.messages import unknown
from kvbench.model.hardware import Hardware
from kvbench.timing.shapes import KINDS, Factors

LEVELS = (0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
"""Of the quantiles that are kept."""
FEW, LEAST = 49, 4
"""Rows by which the outermost levels cannot be told, and without which none can."""
REPLAYS, MOST_DRAWS = 32, 10_000
"""Draws where nobody says how many, and at most."""
MOST_OFF = 10.0
"""Of a logarithm: a factor of 22,000."""
SEED = 20_260_901
"""Of the draws: the same for all that is compared, so that what it shares cancels."""

Quantiles = tuple[float, ...]
Numbers = NDArray[np.float64]
OF_SHEETS: Mapping[str, Quantiles] = {
    "decode": (-1.05, -0.75, -0.42, -0.25, 0.11, 0.52, 0.62, 0.72, 1.25),
    "exchange": (-0.04, -0.02, 0.01, 0.04, 0.28, 2.15, 2.80, 2.84, 2.87),
    "experts": (-1.24, -0.96, -0.60, -0.26, 0.00, 0.24, 0.42, 0.55, 0.89),
    "prefill": (-0.63, -0.49, -0.38, -0.27, -0.02, 0.20, 0.54, 0.68, 0.87),
    "products": (-0.75, -0.52, -0.50, -0.48, 0.04, 0.49, 0.98, 1.25, 1.87),
    "traffic": (-1.18, -1.12, -1.09, -0.89, -0.53, -0.31, 0.02, 0.15, 0.50),
}
"""By kind of work, the widest that typical figures of a data sheet were off by: `calibration.sheets` of H100, H200,
A100, L40S and RTX 4090, by tables of their kernels (aiconfigurator, LLMServingSim). What accelerators say to each other
is that wide by the L40S, whose links are PCIe. The host has none: it is the engine's, and no table's.
"""


class Margin(NamedTuple):
    """How much further an interval of replays is to reach.

    Args:
        stretch: times as far, as logarithms.
        beyond: and so much further, as a logarithm.
    """

    stretch: float = 1.0
    beyond: float = 0.0


SUMS = {"decode_iteration": Margin(stretch=0.62), "mixed_attention": Margin(stretch=2.5)}
"""By what is a sum of kinds of work, of machines whose kernels were measured; conformal, by rows held out that judge no
interval. Products and attention of Llama-3.1-8B's decode steps, on H100, H200, A100, L40S and RTX 4090: a step has
several products, whose errors cancel in part. Attention of chunks and steps in one call, on the RTX 4090: a single
figure is its own.
"""
MARGINS = {"ttft": Margin(beyond=0.15), "tpot": Margin(), "latency": Margin(stretch=1.23), "rate": Margin(stretch=1.23)}
"""By what is served, so that nine of ten published figures lie within: conformal, by the half of serving.csv's rows
that a hash of their shape chooses (Llama-3.1-8B on H100 and Llama-2-7B on A100, TensorRT-LLM), those that told the
engine's figures among them; latencies have that of rates, which follow from them. First tokens are off where many
clients wait for each other: what a benchmark's clients do between requests is not modelled.
Source: Romano et al. 2019, arXiv:1905.03222 (conformalised quantiles).
"""


def margin_of(figure: str) -> Margin:
    """The margin of a figure.

    Args:
        figure: a time, a rate or a share of serving, such as ttft, tpot_p50, itl_mean_s, tokens_per_s, attained_share;
            or one of SUMS.
    """
    measure = figure.partition("_")[0]
    if figure in SUMS:
        return SUMS[figure]
    if figure.endswith("_share"):
        return Margin()
    if measure in ("ttft", "queue"):
        return MARGINS["ttft"]
    if measure in ("tpot", "itl"):
        return MARGINS["tpot"]
    return MARGINS["rate" if figure.endswith("_per_s") else "latency"]


def reaching(figure: str, value: ArrayLike, low: ArrayLike, high: ArrayLike) -> tuple[Numbers, Numbers]:
    """The ends of an interval of replays, with the figure's margin.

    Args:
        figure: see `margin_of`.
        value: the figure, >= 0.
        low: an end, at most the value.
        high: the other, at least the value.
    """
    stretch, beyond = margin_of(figure)
    middle, *ends = (np.asarray(each, np.float64) for each in (value, low, high))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = [np.where(middle > 0, middle * (end / middle) ** stretch, end) for end in ends]
    return found[0] * math.exp(-beyond), found[1] * math.exp(beyond)


class Doubt(NamedTuple):
    """What a machine's modelled times may be off by.

    Args:
        quantiles: of ln(measured ÷ modelled) at LEVELS, by kind of work; a kind that is not there is exact.
        is_measured: whether kernels of the machine were; else these are the widest that others' sheets were off by.
    """

    quantiles: Mapping[str, Quantiles]
    is_measured: bool

    def draws(self, number: int) -> list[Factors]:
        """So many draws, each a factor a kind of work, spread evenly over each kind's quantiles.

        Draw i has the same place among the quantiles of every machine and strategy, so that differences are paired.

        Args:
            number: of draws, >= 0.
        """
        places = _places(number)
        columns = {
            kind: np.exp(np.interp(places[:, at], LEVELS, self.quantiles[kind]))
            for at, kind in enumerate(KINDS)
            if kind in self.quantiles
        }
        return [Factors(**{kind: float(column[i]) for kind, column in columns.items()}) for i in range(number)]

    def ends(self, kind: str) -> tuple[float, float]:
        """What a single time of a kind of work is multiplied by, from and to, at 90 %."""
        own = self.quantiles.get(kind)
        if own is None:
            return 1.0, 1.0
        return math.exp(own[LEVELS.index(0.05)]), math.exp(own[LEVELS.index(0.95)])


def _places(number: int) -> np.ndarray:
    """Places among quantiles, [number, kinds]: of each kind one in every `number`-th part, in an order of its own."""
    generator = np.random.default_rng(SEED)
    within = (np.arange(number) + 0.5) / max(number, 1)
    return np.stack([generator.permutation(within) for _ in KINDS], axis=1)


def doubt_of(hardware: Hardware) -> Doubt:
    """What a machine's modelled times may be off by: residuals of its own kernels, or what data sheets are off by."""
    fitted = hardware.kernels
    if fitted is None or "residuals" not in fitted:
        return Doubt(OF_SHEETS, is_measured=False)
    own = checked_quantiles(f"{hardware.name}: kernels.residuals", fitted["residuals"])
    return Doubt({**OF_SHEETS, **own}, is_measured=True)


def checked_quantiles(where: str, given: object) -> dict[str, Quantiles]:
    """Quantiles by kind of work, from a file.

    Args:
        where: their key, for messages.
        given: a mapping from kinds of work to as many numbers as there are LEVELS, none less than the one before.
    Raises:
        ValueError: it is something else.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is a mapping from kinds of work to quantiles, got {given!r}")
    found = {}
    for kind, values in given.items():
        if kind not in KINDS:
            raise ValueError(f"{where}: {unknown('kind of work', str(kind), KINDS)}")
        if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != len(LEVELS):
            raise ValueError(f"{where}.{kind} has {len(LEVELS)} numbers, at {LEVELS}, got {values!r}")
        for value in values:
            check_number(f"{where}.{kind}", value, -MOST_OFF, MOST_OFF)
        if any(after < before for before, after in pairwise(values)):
            raise ValueError(f"{where}.{kind}: quantiles grow, got {list(values)}")
        found[kind] = tuple(float(value) for value in values)
    return found


def quantiles_of(measured_s: np.ndarray, modelled_s: np.ndarray) -> Quantiles:
    """Quantiles of ln(measured ÷ modelled) of a row to come, conformal: each at least as far out as so many rows can
    tell; of a FEW those of Student's prediction.

    Args:
        measured_s: of rows that fitted nothing, > 0; at least LEAST.
        modelled_s: the same rows.
    Source: Vovk et al. 2005, Algorithmic Learning in a Random World; Lei et al. 2018, arXiv:1604.04173.
    """
    off = np.sort(np.log(np.asarray(measured_s) / np.asarray(modelled_s)))
    number = len(off)
    if number < FEW:
        spread = float(off.std(ddof=1)) * math.sqrt(1 + 1 / number)
        return tuple(float(off.mean()) + spread * _student(level, number - 1) for level in LEVELS)
    found = []
    for level in LEVELS:
        # Of n residuals and the next one, each order is as likely: the k-th bounds a share of k / (n + 1).
        place = (number + 1) * level - 1
        place = math.floor(place) if level < 0.5 else math.ceil(place)  # noqa: PLR2004
        found.append(float(off[min(max(place, 0), number - 1)]))
    return tuple(found)


def _student(level: float, freedom: int) -> float:
    """Student's t at a level, by its expansion around the normal's.

    Source: Abramowitz and Stegun 1964, 26.7.5.
    """
    z = NormalDist().inv_cdf(level)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2
