"""What data sheets are off by: the constants are what tables say, and a made machine's error is found."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kvbench.calibration.sheets import off_by_sheets
from kvbench.calibration.tables import read_kernels
from kvbench.model.hardware import hardware_from
from kvbench.timing.doubt import LEVELS, OF_SHEETS, doubt_of
from kvbench.timing.kernels import kernels_of
from tests.support.catalogue import node_of
from tests.support.measurements import measurement


def hardware(name):
    return hardware_from(node_of("hardware", name))


MEASURED = ("h100", "h200", "a100_80", "l40s", "rtx_4090")


def products(times, machine):
    """A table of products that take so many times what the machine's data sheet says."""
    m, n, k = (axis.ravel() for axis in np.meshgrid([16, 256, 4096], [1024, 4096], [2048, 8192], indexing="ij"))
    seconds = times * kernels_of(machine).product_s(m, n, k, "bfloat16")
    table = pd.DataFrame({"op": "gemm", "dtype": "bfloat16", "m": m, "n": n, "k": k, "seconds": seconds})
    return table.assign(**dict.fromkeys(["kv_dtype", "source", "detail"], ""), num_experts=0)


def test_the_widest_of_two_machines_is_told():
    machine = replace(hardware("h100"), kernels=None)
    found = off_by_sheets([(machine, products(1.5, machine)), (machine, products(0.5, machine))])["products"]
    assert found[0] == pytest.approx(np.log(0.5))
    assert found[-1] == pytest.approx(np.log(1.5))
    assert found[LEVELS.index(0.5)] == pytest.approx(np.log(0.75) / 2)


def test_a_machine_that_nobody_measured_takes_what_sheets_are_off_by():
    doubt = doubt_of(hardware("l4"))
    assert not doubt.is_measured
    low, high = doubt.ends("products")
    assert low < 0.7
    assert high > 1.5


def test_the_constants_are_what_tables_say():
    tables = [(hardware(name), read_kernels(measurement(f"kernels/{name}_vllm.parquet"))) for name in MEASURED]
    found = off_by_sheets(tables)
    assert found.keys() == OF_SHEETS.keys()
    for kind, told in OF_SHEETS.items():
        assert told == pytest.approx(found[kind], abs=0.05), kind
