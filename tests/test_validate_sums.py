"""Sums of several kinds of work, iterations and mixed calls of attention: their intervals, and how many lie in them."""

import math

import numpy as np
import pandas as pd
import pytest

import kvbench as kv
from kvbench.calibration.tables import HELD_OUT_OF, judges_intervals, read_kernels
from kvbench.calibration.validation.drawn import drawn_ends, sum_ends
from kvbench.calibration.validation.iterations import judged_iterations
from kvbench.calibration.validation.mixed import judged_mixed, read_mixed
from kvbench.calibration.validation.rows import errors_of
from kvbench.model.hardware import hardware_from
from kvbench.timing.doubt import LEVELS, MARGINS, SUMS, Doubt, Margin, doubt_of
from kvbench.timing.kernels import kernels_of
from tests.support.catalogue import node_of, preset
from tests.support.measurements import measurement

MEASURED = ("h100", "h200", "a100_80", "l40s", "rtx_4090")
SPREAD = tuple(math.log(1 + level) for level in LEVELS)


def test_a_sum_reaches_as_far_as_its_kinds_drawn_together():
    sure = Doubt({"decode": (0.0,) * 9, "products": (math.log(2),) * 9}, is_measured=False)
    low, high = sum_ends("decode_iteration", {"decode": [3.0, 0.0], "products": [1.0, 4.0]}, sure)
    assert low.tolist() == [4.0, 4.0]  # ours is in it, be it off by ever so much
    assert high.tolist() == pytest.approx([5.0, 8.0])
    assert np.isnan(sum_ends("decode_iteration", {"decode": [3.0]}, None)).all()


def test_kinds_of_work_cancel_in_part():
    doubt = Doubt({"decode": SPREAD, "prefill": SPREAD}, is_measured=False)
    (_, one), (_, two) = (
        sum_ends("mixed_attention", parts, doubt) for parts in ({"decode": 2.0}, {"decode": 1.0, "prefill": 1.0})
    )
    assert 2.0 < two < one <= 2 * 1.98


def test_the_margin_is_of_measured_machines():
    doubt = Doubt({"decode": SPREAD}, is_measured=False)
    plain, wide = (
        sum_ends("mixed_attention", {"decode": 1.0}, each) for each in (doubt, doubt._replace(is_measured=True))
    )
    assert math.log(wide[1]) == pytest.approx(SUMS["mixed_attention"].stretch * math.log(plain[1]))
    assert np.isnan(drawn_ends("mixed_attention", 1.0, [])).all()


def scores(rows):
    """How far what was measured lies beyond ours, of as far as the interval reaches."""
    published, ours, low, high = (rows[name].to_numpy() for name in ("published", "ours", "low", "high"))
    return np.maximum(np.log(published / ours) / np.log(high / ours), np.log(published / ours) / np.log(low / ours))


def conformal(rows):
    """The least stretch by which nine of ten of these rows and the next one lie within."""
    return conformal_of(scores(rows))


def conformal_of(values):
    ordered = np.sort(values)
    return ordered[min(math.ceil((len(ordered) + 1) * 0.9) - 1, len(ordered) - 1)]


def iterations():
    for name in MEASURED:
        machine = hardware_from(node_of("hardware", name))
        table = read_kernels(measurement(f"kernels/{name}_vllm.parquet"))
        yield judged_iterations(table, kernels_of(machine), preset("llama3_8b"), doubt_of(machine)).rows


def mixed():
    path, machine = (
        measurement("kernels/mixed_attention_rtx_4090_vllm.parquet"),
        hardware_from(node_of("hardware", "rtx_4090")),
    )
    yield judged_mixed(read_mixed(path, pd.read_parquet(path)), kernels_of(machine), doubt_of(machine)).rows


@pytest.mark.parametrize(("kind", "made"), [("decode_iteration", iterations), ("mixed_attention", mixed)])
def test_margins_are_what_tables_say_and_nine_of_ten_of_the_rest_lie_within(kind, made):
    rows = pd.concat(list(made()), ignore_index=True)
    own = rows[rows["held_out"] & ~rows["judges"]]
    assert set(rows["kind"]) == {kind}
    assert conformal(own) == pytest.approx(1.0, rel=0.02)
    assert 0.85 <= errors_of(rows).coverage <= 0.95


def test_half_of_what_is_held_out_judges():
    table = pd.DataFrame({"op": "gemm", "m": range(1, 2001), "n": 1, "k": 1})
    assert judges_intervals(table).mean() == pytest.approx(0.5 / HELD_OUT_OF, rel=0.2)


@pytest.mark.slow
def test_margins_of_what_is_served_are_those_of_one_half_and_hold_for_the_other(monkeypatch):
    """32 simulations of each of 90 rows."""
    own = dict(MARGINS)
    for what in own:
        monkeypatch.setitem(MARGINS, what, Margin())
    rows = kv.validate(measurement("serving.csv")).rows
    for kind, margin in (("ttft", own["ttft"]), ("output_tokens_per_s", own["rate"])):
        of_kind = rows[rows["kind"] == kind]
        tells, judges = (of_kind[of_kind["judges"] == each] for each in (False, True))
        if margin.beyond:
            ends = np.maximum(np.log(tells["published"] / tells["high"]), np.log(tells["low"] / tells["published"]))
            assert conformal_of(ends.to_numpy()) == pytest.approx(margin.beyond, abs=0.02)
        else:
            assert conformal_of(scores(tells)) == pytest.approx(margin.stretch, rel=0.02)
        low, high = (judges["ours"] * (judges[end] / judges["ours"]) ** margin.stretch for end in ("low", "high"))
        within = judges["published"].between(low * math.exp(-margin.beyond), high * math.exp(margin.beyond))
        assert 0.85 <= within.mean() <= 0.95
