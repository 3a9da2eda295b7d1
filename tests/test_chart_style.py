"""What charts share: looks, names, numbers, units, and lines that are thinned."""

import numpy as np
import pytest

from kvbench.charts import text
from kvbench.charts.style import NUM_LOOKS, REST, looks, short_names
from kvbench.charts.text import shown_unit
from kvbench.results.schema import SUMMARY
from kvbench.results.series import thinned
from tests.support.frames import THREE
from tests.test_plots import MANY


def test_a_strategy_looks_the_same_whatever_stands_beside_it():
    names = [*THREE, "hierarchical", "zebra", "exact", "a", "b"]
    assert looks(names) == looks(reversed(names))
    assert looks(["dynamic", "zebra"])["dynamic"] == looks(names)["dynamic"]
    for part in zip(*looks(names).values(), strict=True):
        assert len(set(part)) == NUM_LOOKS == 8, "each differs in hue, marker, line and hatch"
    many = looks([*names, "c"], coloured=["c", "static"])
    assert [name for name, look in many.items() if look is not REST] == ["static", "c"]


def test_names_are_cut_but_differ_and_are_no_mathematics():
    names = [*MANY, "_hidden", "a\nb\x1b[2J", "a b", "a\tb", "x" * 200, "x" * 199 + "y"]
    shown = short_names(names)
    assert len(set(shown.values())) == len(names)
    assert max(map(len, shown.values())) <= 36
    assert shown["a\nb\x1b[2J"] == "a b [2J"
    assert r"\$" in shown[names[0]]
    assert not shown["_hidden"].startswith("_")


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (1234567, "1,234,567"), (0.07734, "0.0773"), (39.96, "40"), (np.nan, "–")]
)
def test_numbers(value, shown):
    assert text.number(value) == shown


@pytest.mark.parametrize(
    ("values", "unit"), [([3 * 2**20] * 4 + [8 * 2**30], "MiB"), ([2**10, 2**10, 2**40], "MiB"), ([], "MiB")]
)
def test_one_outlier_switches_no_unit(values, unit):
    assert shown_unit(SUMMARY["peak_bytes"], values).name == unit


def test_units_follow_the_usual_value():
    assert shown_unit(SUMMARY["peak_bytes"], [0, 5 * 2**30, np.nan]).name == "GiB"
    assert shown_unit(SUMMARY["stall_s"], [0.002, 0.004]) == ("ms", pytest.approx(1e-3))
    assert shown_unit(SUMMARY["step_max_us"], [2e6]) == ("s", 1e6)
    assert shown_unit(SUMMARY["ttft_mean_s"], [599]) == ("s", 1)
    assert shown_unit(SUMMARY["ttft_mean_s"], [600]) == ("min", 60)
    assert shown_unit(SUMMARY["step_max_us"], [3 * 3600e6]) == ("h", 3600e6)
    assert shown_unit(SUMMARY["efficiency"], [3]) == ("per 1000 MiB", 1)


def test_thinned_lines_keep_extremes_and_ends():
    y = np.zeros(100_000)
    y[[77_777, 12_345]] = 9.0, -9.0
    y[500:600] = np.nan
    x, kept = thinned(np.arange(len(y)), y, 1000)
    assert len(x) <= 1002
    assert (x[0], x[-1]) == (0, len(y) - 1)
    assert {77_777, 12_345} <= set(x.tolist())
    assert np.array_equal(kept, y[x], equal_nan=True)
