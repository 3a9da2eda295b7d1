"""Attention's modelled times: one form for all accelerators, sane wherever nobody measured."""

import numpy as np
import pytest

from kvbench.timing.attention import Attention, attention_figures, attention_of
from kvbench.timing.kernels import kernels_of
from kvbench.timing.prompts import PromptFigures, prefill_s
from kvbench.timing.rooflines import Peaks
from kvbench.timing.shapes import AttentionShape
from kvbench.timing.steps import StepFigures
from tests.support.machines import machine

PEAKS = Peaks(memory_bytes_per_s=3e12, flops_per_s=1e15)
GROUPED = AttentionShape(32, 8, 128, 128, "bfloat16", "bfloat16")
WINDOWED = GROUPED._replace(window=1024)
ALONE = AttentionShape(8, 8, 128, 128, "bfloat16", "fp8_e4m3")
LATENT = AttentionShape(128, 1, 576, 0, "bfloat16", "bfloat16")
SHAPES = (GROUPED, WINDOWED, ALONE, LATENT)
LENGTHS = np.unique(np.geomspace(1, 2**20, 200).astype(int))
BATCHES = np.unique(np.geomspace(1, 2**14, 60).astype(int))
ATTENTION = {
    "as typical": Attention(PEAKS),
    "each head by itself": Attention(PEAKS, typical=(PromptFigures(packs=0.0), StepFigures(regroups=1.0))),
}


@pytest.fixture(params=ATTENTION)
def attention(request):
    return ATTENTION[request.param]


@pytest.mark.parametrize("shape", SHAPES)
def test_times_never_fall_with_more_work(attention, shape):
    prompts = attention.prefill_s(LENGTHS[:, None], LENGTHS[None], shape)
    assert (np.diff(prompts, axis=0) >= 0).all()
    assert (np.diff(prompts, axis=1) >= 0).all()
    most = LENGTHS[(shape.window or LENGTHS[-1]) >= LENGTHS]
    steps = attention.decode_s(BATCHES[:, None] * most[None], BATCHES[:, None], shape)
    assert (np.diff(steps, axis=0) >= 0).all()
    assert (np.diff(steps, axis=1) >= 0).all()
    assert (
        attention.prefill_s(512, 0, shape, np.arange(1, 9)) > attention.prefill_s(512, 0, shape, np.arange(8))
    ).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_steps_are_straight_in_what_they_see_and_cost_something(attention, shape):
    for terms in (attention.decode_terms, attention.mixed_terms):
        fixed, token = terms(BATCHES, shape)
        assert (fixed >= 0).all()
        assert (token > 0).all()
        assert (np.diff(fixed) >= -1e-12).all()
        seen = BATCHES * min(4096, shape.window or 4096)
        assert (np.diff(fixed + token * seen) > 0).all()


def test_ends_are_rooflines():
    attention = Attention(PEAKS)
    seen, slot = 1e9, 2 * 8 * 128 * 2
    assert attention.decode_s(seen, 64, GROUPED) == pytest.approx(seen * slot / (3e12 * StepFigures().share), rel=0.01)
    _, token = attention.decode_terms(64, GROUPED)
    assert token == pytest.approx(slot / (3e12 * StepFigures().share), rel=0.1)
    pairs = 2.0**40 / 2
    peak = pairs * 4 * 32 * 128 / (1e15 * PromptFigures().share)
    slowed = (1 + peak / 2e-3) ** PromptFigures().tiring
    assert attention.prefill_s(2**20, 0, GROUPED) == pytest.approx(peak * slowed, rel=0.03)
    assert attention.prefill_s(0, 0, GROUPED) == PromptFigures().floor_s


def test_a_window_bounds_what_prompts_and_steps_pay():
    attention = Attention(PEAKS)
    near, far = attention.prefill_s(2048, np.array([2**14, 2**19]), WINDOWED)
    assert near == far < attention.prefill_s(2048, 2**14, GROUPED) / 4


def test_a_cache_of_half_the_bytes_reads_in_half_the_time():
    attention = Attention(PEAKS)
    _, whole = attention.decode_terms(128, ALONE._replace(kv_dtype="bfloat16"))
    _, half = attention.decode_terms(128, ALONE)
    assert half == pytest.approx(whole / 2, rel=0.1)


def test_a_model_finds_nothing_of_a_layer_in_the_accelerators_cache():
    attention = Attention(PEAKS)
    seen = 2000 * 4
    fixed, token = attention.decode_terms(4, GROUPED)
    assert fixed + token * seen > attention.decode_s(seen, 4, GROUPED)  # 33 MB
    seen = 8000 * 64
    fixed, token = attention.decode_terms(64, GROUPED)
    assert fixed + token * seen == pytest.approx(attention.decode_s(seen, 64, GROUPED), rel=0.03)  # 2 GB


def test_sequences_in_a_prompts_call_pay_for_each_head_where_it_takes_heads_by_themselves():
    apart, together = ATTENTION["each head by itself"], ATTENTION["as typical"]
    fixed, token = apart.mixed_terms(np.array([1, 2, 256]), GROUPED)
    assert token[0] == pytest.approx(PromptFigures().walk_s, rel=0.05)  # one sequence's walk, though units idle
    assert token[1] == pytest.approx(token[0] / 2, rel=0.1)
    _, read = apart.decode_terms(256, GROUPED)
    assert token[2] > read
    assert fixed[2] == pytest.approx(256 * 0.7 * 32 * PromptFigures().tile_s)
    assert together.mixed_terms(64, GROUPED) == together.decode_terms(64, GROUPED)


def test_a_file_says_figures_by_the_caches_dtype():
    figures = dict.fromkeys(PromptFigures._fields, 0.001) | {"packs": 1, "knee": 2.0}
    made = attention_of(machine(kernels={"attention": {"prefill": {"bfloat16": figures}}}))
    told = prefill_s(100, 50, 2, GROUPED, Peaks(64e9, 128e9), PromptFigures(**figures))
    assert made.prefill_s(100, 50, GROUPED, 2) == told
    # An 8-bit cache's kernels take the nearest figures that there are.
    assert made.prefill_s(100, 50, GROUPED._replace(kv_dtype="int8"), 2) < told
    assert kernels_of(machine()).prefill_s(100, 50, GROUPED) == attention_of(machine()).prefill_s(100, 50, GROUPED)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"k is a mapping, got \[\]"),
        ({"prefil": {}}, r"k: unknown kind of attention 'prefil'.*prefill"),
        ({"decode": {"fp16": {}}}, r"k\.decode: unknown cache 'fp16'"),
        ({"decode": {"fp8": {"flor_s": 1}}}, r"k\.decode\.fp8: unknown figure 'flor_s'.*floor_s"),
        ({"decode": {"fp8": {"floor_s": 0}}}, r"k\.decode\.fp8\.floor_s is a number above 0 .*, got 0"),
        ({"decode": {"fp8": {"floor_s": True}}}, r"k\.decode\.fp8\.floor_s is a number above 0 .*, got True"),
        ({"prefill": {"fp8": {"floor_s": 1}}}, r"k\.prefill\.fp8: missing share, width_power"),
    ],
)
def test_figures_are_refused_that_say_nothing(given, message):
    with pytest.raises(ValueError, match=message):
        attention_figures("k", given)
