"""Fits that conf/hardware ships. `python -m tests.support.fits [NAME…]` makes them anew from the published tables."""

import os
import sys
from pathlib import Path

from kvbench.api.calibrating_from import calibrate_from
from kvbench.calibration.kernels_file import with_kernels
from kvbench.configuration.catalogue import own_file

MEASURED = ("h100", "h200", "a100_80", "l40s", "rtx_4090")
"""Machines, whose kernels tables have."""


def table_of(name: str) -> str:
    """A machine's table, in the folder of measurements."""
    return f"kernels/{name}_vllm.parquet"


def main(names: list[str]) -> None:
    """Write the files of these machines, or of all."""
    for name in names or MEASURED:
        found = calibrate_from(Path(os.environ["KVBENCH_MEASUREMENTS"], table_of(name)))
        file = own_file("hardware", name)
        text = with_kernels(file.read_text(encoding="utf-8"), found.hardware.kernels or {})
        file.write_text(text, encoding="utf-8")
        print(f"{name}: {found.text.splitlines()[-1]}")


if __name__ == "__main__":
    main(sys.argv[1:])
