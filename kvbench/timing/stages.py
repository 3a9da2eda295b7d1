"""Prices of a pipeline, whose stages each have a batch of an iteration: as many are under way as there are stages."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kvbench.timing.prices import LINEAR, PREFILL, SEQUENCES, SIZES, STEP_ROWS


def lay_in_stages(tables: NDArray[np.int64], stages: Sequence[int]) -> None:
    """Make prices of a model those of its pipeline.

    An iteration is a step of every sequence, in batches of equally many, each at another stage; its next step follows
    when it has passed all. So an iteration takes what the largest batch takes to pass all stages, each as long as the
    one with most layers. With fewer sequences than stages some stages have nothing to do: those are its bubbles. All
    batches pass the head, which the last stage has beside its layers.

    Args:
        tables: `Prices.tables` but for STEP, as if all stages were one; rows of sequences become those of all batches,
            while LINEAR stays one of a batch's tokens.
        stages: layers of each stage, at least one.
    """
    num_stages, number = len(stages), np.arange(SIZES + 1)
    slowest = num_stages * max(stages) / sum(stages)
    under_way = np.minimum(np.maximum(number, 1), num_stages)
    of_batch = -(-number // num_stages)
    whole = tables.copy()
    head, stage = whole[SEQUENCES, of_batch], slowest * whole[LINEAR, of_batch] / num_stages
    waited = np.maximum((under_way - 1) * head - (num_stages - under_way) * stage, 0)
    # Nothing takes less than if all stages shared it evenly.
    tables[SEQUENCES] = np.maximum.accumulate(np.ceil(np.maximum(head + waited, whole[SEQUENCES] / num_stages)))
    told = number[: SIZES // num_stages + 1]
    linear = slowest * whole[LINEAR]
    linear[told] = np.maximum(linear[told], whole[LINEAR, told * num_stages] / num_stages)
    tables[LINEAR] = np.maximum.accumulate(np.ceil(linear))
    for fixed, unit in STEP_ROWS:
        tables[fixed] = np.ceil(np.maximum(slowest * whole[fixed, of_batch], whole[fixed] / num_stages))
        tables[unit] = np.ceil(np.maximum(slowest * whole[unit, of_batch] / under_way, whole[unit] / num_stages))
    tables[PREFILL:] = np.ceil(slowest * whole[PREFILL:])
