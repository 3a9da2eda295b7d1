"""Figures of attention's kernels are found in tables whose truth is known."""

import itertools

import numpy as np
import pandas as pd
import pytest

from kvbench.calibration.attention import attention_s, fit_attention
from kvbench.calibration.robust import fitted
from kvbench.calibration.tables import is_held_out, read_kernels
from kvbench.calibration.validation.iterations import judged_iterations
from kvbench.model.hardware import hardware_from
from kvbench.timing.attention import Attention, AttentionFigures, attention_figures
from kvbench.timing.kernels import kernels_of
from kvbench.timing.prompts import PromptFigures
from kvbench.timing.rooflines import Peaks
from kvbench.timing.steps import StepFigures
from tests.support.catalogue import node_of, preset
from tests.support.machines import machine
from tests.support.measurements import measurement

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


def held_errors(frame, figures):
    """Of rows that fitted nothing, ours over the table's, less 1."""
    held = frame[is_held_out(frame)]
    return attention_s(held, Attention(PEAKS, attention_figures("fit", figures))) / held["seconds"].to_numpy() - 1


def test_figures_are_found_and_hold_on_rows_that_fitted_nothing():
    frame = table()
    figures = fit_attention(frame, FAST)
    assert {kind: list(by_cache) for kind, by_cache in figures.items()} == {
        "prefill": ["bfloat16"],
        "decode": ["bfloat16"],
    }
    prompts, steps = figures["prefill"]["bfloat16"], figures["decode"]["bfloat16"]
    assert (prompts["packs"], steps["regroups"]) == (0.0, 1.0)
    assert prompts["share"] == pytest.approx(0.8, rel=0.03)
    assert prompts["floor_s"] == pytest.approx(7e-6, rel=0.03)
    assert steps["floor_s"] == pytest.approx(1.4e-5, rel=0.03)
    assert steps["share"] == pytest.approx(0.93, rel=0.03)
    assert np.abs(held_errors(frame, figures)).mean() < 0.01


def test_rows_that_are_held_out_fit_nothing():
    frame = table()
    wrong = frame.assign(seconds=frame["seconds"].where(~is_held_out(frame), frame["seconds"] * 2))
    figures = fit_attention(wrong, FAST)
    assert figures == fit_attention(frame, FAST)
    assert held_errors(wrong, figures).mean() == pytest.approx(-0.5, abs=0.01)


MOST_OFF = {"decode_attention": 0.12, "prefill_attention": 0.08}


@pytest.mark.parametrize("name", ["h100", "h200", "a100_80", "l40s", "rtx_4090"])
def test_shipped_figures_are_near_rows_that_fitted_nothing_and_sums_of_kernels(name):
    frame = read_kernels(measurement(f"kernels/{name}_vllm.parquet"))
    kernels = kernels_of(hardware_from(node_of("hardware", name)))
    assert kernels.is_fitted
    for op, most in MOST_OFF.items():
        held = frame[is_held_out(frame) & (frame["op"] == op)]
        held = held[(held["new_tokens"] >= 512) | (op == "decode_attention")]
        off = np.abs(attention_s(held, kernels) / held["seconds"].to_numpy() - 1)
        assert off.mean() <= most
    iterations = judged_iterations(frame, kernels, preset("llama3_8b")).rows
    assert len(iterations) > 50
    assert iterations["error"].abs().mean() <= 0.05


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
