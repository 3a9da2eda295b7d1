"""Matrix products: a floor, a knee between bytes and operations, tiles that are not full, and what is left by shape."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from kvbench.model.hardware import Hardware
from kvbench.timing.corrections import Corrections
from kvbench.timing.memory import read_s
from kvbench.timing.operands import OPERANDS, RESULT_BYTES, Operand
from kvbench.timing.rooflines import Peaks, Seconds, knee

TILE_ROWS = (16.0, 128.0)
"""Rows of a tile of the result, at least and at most: of few tokens, as many as there are."""
CONVERTED_BYTES = 3.0
"""Moved for a token's number that is made of eight bits out of sixteen: read and written."""
KNOTS = (
    (1.0, 8.0, 32.0, 64.0, 96.0, 256.0, 1024.0, 4096.0, 16384.0),
    (256.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 65536.0),
    (256.0, 1024.0, 4096.0, 16384.0),
)
"""Tokens, outputs and inputs at which corrections are."""


class ProductFigures(NamedTuple):
    """What a fit says of products of a dtype; those of a machine that nobody measured are typical.

    Args:
        floor_s: of a product, at least.
        share: of the memory's bandwidth.
        cache_share: the same ratio, of bytes that stay in the accelerator's cache.
        cache_bytes: that stay there, when a product is called again and again.
        compute_share: of the peak rate.
        sharpness: of the knee between bytes and operations, whose power is 1 more.
        write_weight: of a byte that is written, as against one that is read.
        busy_columns: of outputs, which a tile's rows must have for all of the accelerator's units to work.
        busy_sharpness: of the knee between those and what there is.
        convert_share: of the memory's bandwidth, in which tokens' numbers are converted.
    """

    floor_s: float = 3.3e-6
    share: float = 0.85
    cache_share: float = 2.0
    cache_bytes: float = 5e6
    compute_share: float = 0.8
    sharpness: float = 1.5
    write_weight: float = 1.3
    busy_columns: float = 2000.0
    busy_sharpness: float = 1.0
    convert_share: float = 0.5


def product_s(
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    operand: Operand,
    peaks: Peaks,
    figures: ProductFigures,
    corrections: Corrections | None,
    converts: bool = True,
) -> Seconds:
    """A product of (m, k) by (k, n).

    Args:
        m: tokens.
        n: outputs.
        k: inputs.
        operand: what is multiplied.
        peaks: of the machine, for that.
        figures: of a fit.
        corrections: by tokens, outputs and inputs.
        converts: tokens' numbers too, where they have fewer bits than are computed with between products.
    """
    m, n, k = (np.asarray(each, np.float64) for each in (m, n, k))
    moved = m * k * operand.input_bytes + n * k * operand.weight_bytes + RESULT_BYTES * figures.write_weight * m * n
    reading_s = read_s(moved, peaks.memory_bytes_per_s, figures.share, figures.cache_share, figures.cache_bytes)
    area = knee(m * n, np.clip(m, *TILE_ROWS) * figures.busy_columns, 1 + figures.busy_sharpness)
    computing_s = 2 * k * area / (peaks.flops_per_s * figures.compute_share)
    found: Seconds = figures.floor_s + knee(reading_s, computing_s, 1 + figures.sharpness)
    if operand.is_converted and converts:
        found = found + m * k * CONVERTED_BYTES / (peaks.memory_bytes_per_s * figures.convert_share)
    return found if corrections is None else found * corrections.factor(m, n, k)


def at_share(hardware: Hardware, share: float) -> Hardware:
    """A machine whose fitted products of 16 bits compute at a share of their rate; as it is, where none was fitted.

    What is no fit is left for `Kernels` to refuse.
    """
    fits = (hardware.kernels or {}).get("products")
    if share == 1 or not isinstance(fits, Mapping):
        return hardware
    slowed = dict(fits)
    for dtype, fit in fits.items():
        rate = fit.get("compute_share") if isinstance(fit, Mapping) else None
        if isinstance(rate, int | float) and dtype in OPERANDS and OPERANDS[dtype].rate == "16-bit":
            slowed[dtype] = {**fit, "compute_share": share * rate}
    return replace(hardware, kernels={**(hardware.kernels or {}), "products": slowed})
