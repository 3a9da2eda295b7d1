"""Figures of attention's kernels are found in tables whose truth is known."""

import itertools

import numpy as np
import pandas as pd
import pytest

from kvbench.calibration.attention import attention_s, fit_attention
from kvbench.calibration.robust import fitted
from kvbench.calibration.tables import is_held_out
from kvbench.timing.attention import Attention, AttentionFigures
from kvbench.timing.prompts import PromptFigures
from kvbench.timing.rooflines import Peaks
from kvbench.timing.steps import StepFigures
from tests.support.machines import machine

FAST = machine(memory_bytes_per_s=3e12, flops_per_s=1e15)
PEAKS = Peaks(FAST.memory_bytes_per_s, FAST.flops_per_s)
TRUTH = AttentionFigures(
    prefill={"bfloat16": PromptFigures(floor_s=7e-6, share=0.8, walk_s=2e-8, packs=0.0)},
    decode={"bfloat16": StepFigures(floor_s=1.4e-5, share=0.93, units=132.0, regroups=1.0)},
)
HEADS = ((32, 8, 128), (16, 16, 128), (8, 1, 128), (16, 4, 64))


def table():
    """Rows of both kinds, which take what TRUTH says."""
    rows = [
        ("prefill_attention", batch, new, 0, *heads)
        for batch, new, heads in itertools.product((1, 4, 16), (16, 64, 256, 1024, 4096, 8192), HEADS)
    ]
    rows += [
        ("decode_attention", batch, 1, seen - 1, *heads)
        for batch, seen, heads in itertools.product((1, 4, 32, 256), (16, 128, 1024, 8192, 32768), HEADS)
    ]
    names = ["op", "batch", "new_tokens", "context_tokens", "num_heads", "num_kv_heads", "head_dim"]
    found = pd.DataFrame(rows, columns=names).assign(dtype="bfloat16", kv_dtype="bfloat16", window=0, seconds=1.0)
    return found.assign(seconds=attention_s(found, Attention(PEAKS, TRUTH)))


def test_figures_are_found_and_judged_on_rows_that_fitted_nothing():
    frame = table()
    fit = fit_attention(frame, FAST)
    assert {kind: list(by_cache) for kind, by_cache in fit.figures.items()} == {
        "prefill": ["bfloat16"],
        "decode": ["bfloat16"],
    }
    prompts, steps = fit.figures["prefill"]["bfloat16"], fit.figures["decode"]["bfloat16"]
    assert (prompts["packs"], steps["regroups"]) == (0.0, 1.0)
    assert prompts["share"] == pytest.approx(0.8, rel=0.03)
    assert prompts["floor_s"] == pytest.approx(7e-6, rel=0.03)
    assert steps["floor_s"] == pytest.approx(1.4e-5, rel=0.03)
    assert steps["share"] == pytest.approx(0.93, rel=0.03)
    every = fit.errors[fit.errors["region"] == "all"].set_index("kind")
    assert every["rows"].sum() == is_held_out(frame).sum()
    assert (every["mape"] < 0.01).all()
    assert all(abs(each) < 0.05 for kind in ("prefill", "decode") for each in fit.residuals[kind])


def test_rows_that_are_held_out_fit_nothing():
    frame = table()
    wrong = frame.assign(seconds=frame["seconds"].where(~is_held_out(frame), frame["seconds"] * 2))
    fit = fit_attention(wrong, FAST)
    assert fit.figures == fit_attention(frame, FAST).figures
    every = fit.errors[fit.errors["region"] == "all"]
    assert every["bias"].to_numpy() == pytest.approx([-0.5, -0.5], abs=0.01)
    assert fit.residuals["decode"][4] == pytest.approx(np.log(2), abs=0.02)


def test_a_table_without_attention_is_refused():
    with pytest.raises(ValueError, match="no rows of prefill_attention or decode_attention to fit"):
        fit_attention(table().assign(op="gemm"), FAST)


def test_far_rows_count_little_and_what_rows_do_not_tell_stays_typical():
    size = np.arange(1.0, 200.0)
    measured = 3 + 2 * size
    measured[::10] *= 5
    found = fitted(
        lambda figures: figures["floor"] + figures["each"] * size,
        {"floor": 1.0, "each": 1.0, "unasked": 7.0, "bound": 1.0},
        measured,
        {"bound": 0.5},
    )
    assert found["floor"] == pytest.approx(3, rel=0.05)
    assert found["each"] == pytest.approx(2, rel=0.02)
    assert found["unasked"] == pytest.approx(7)
    assert found["bound"] == pytest.approx(0.5)
