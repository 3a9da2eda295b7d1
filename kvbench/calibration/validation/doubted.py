"""Our interval of each kernel's time, from what a machine's kernels, or data sheets, were off by."""

import pandas as pd

from kvbench.calibration.kernels import KINDS_OF
from kvbench.model.hardware import Hardware
from kvbench.timing.doubt import doubt_of


def with_intervals(rows: pd.DataFrame, hardware: Hardware) -> pd.DataFrame:
    """Rows of kernels with the ends of ours, at 90 %; sums of kernels have none.

    Args:
        rows: from `kernels.judged_kernels`.
        hardware: their accelerator.
    """
    doubt = doubt_of(hardware)
    ends = {kind: doubt.ends(work) for kind, work in KINDS_OF.items()}
    low, high = (rows["kind"].map({kind: each[at] for kind, each in ends.items()}) for at in (0, 1))
    return rows.assign(low=rows["ours"] * low.astype(float), high=rows["ours"] * high.astype(float))
