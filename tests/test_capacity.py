"""What fits, by hand, where the memory for the cache is given."""

from dataclasses import dataclass, replace

import pytest

from kvbench.engine.capacity import capacity, smallest_parallel
from kvbench.engine.memory import RankMemory
from kvbench.engine.trtllm import TensorRTLLM
from kvbench.engine.vllm import VLLM
from kvbench.model.parallel import Parallel
from kvbench.model.weights import WeightPart
from tests.support.engine_models import plain
from tests.support.machines import machine

GIB = 2**30
WEIGHTS = (WeightPart(name="all", kind="body", num_parameters=875_000_000, layers=tuple(range(80))),)
LLAMA = replace(plain(80, 64, 8, 128), weights=WEIGHTS, max_tokens=131_072)
ROUND = machine()


@dataclass(frozen=True, kw_only=True)
class GivenMemory(VLLM):
    """vLLM, where memory is 75 GiB and all of it weights and cache."""

    def memory(self, rank, hardware, parallel=None):
        return RankMemory(total_bytes=80 * GIB, budget_bytes=75 * GIB, weights_bytes=rank.weights_bytes)


def fits(engine=GivenMemory(), model=LLAMA, hardware=ROUND, **degrees):
    return capacity(model, hardware, engine, Parallel(**degrees))


def test_blocks_tokens_and_requests_of_a_70b_on_four():
    # A rank has 2 of 8 KV heads: a block takes 16 · 2 · 2 · 128 · 2 bytes in each of 80 layers, 1,310,720.
    of = fits(tensor=4)
    assert of.memory.available_bytes == 75 * GIB - 35 * 10**9 == 45_530_636_800
    assert of.num_blocks == 45_530_636_800 // 1_310_720 == 34_737
    assert of.max_concurrency == pytest.approx(34_737 / 8_192)
    assert of.num_tokens == int(34_737 / 8_192 * 131_072) == 555_792
    assert of.requests(1_024) == 34_736 // 64  # a block is held back
    assert of.short_bytes == 0
    assert of.fits


def test_replicas_hold_as_many_each():
    one, two = fits(tensor=4), fits(tensor=4, data=2)
    assert two.requests(8_192) == 2 * one.requests(8_192)
    assert two.num_tokens == one.num_tokens
    assert two.most_requests == 2 * one.most_requests


def test_what_does_not_fit_says_what_is_short():
    of = fits()
    assert (of.num_blocks, of.num_tokens, of.max_concurrency, of.longest_tokens) == (0, 0, 0.0, 0)
    assert of.requests(1) == 0
    assert of.short_bytes == 140 * 10**9 - 75 * GIB + 8_192 * 16 * 80 * 4_096  # one request of 131,072 tokens


def test_weights_that_leave_room_for_short_requests_alone():
    of = fits(tensor=2)
    assert of.num_blocks == (75 * GIB - 70 * 10**9) // 2_621_440 == 4_017
    assert of.longest_tokens == 4_016 * 16
    assert not of.fits
    assert of.short_bytes == 0


def test_the_fewest_accelerators_on_which_it_fits():
    assert smallest_parallel(LLAMA, machine(), GivenMemory(), Parallel()) == Parallel(tensor=4)
    assert smallest_parallel(LLAMA, machine(accelerators_per_node=2), GivenMemory(), Parallel()) == Parallel(
        tensor=2, pipeline=2
    )
    huge = replace(LLAMA, weights=(replace(WEIGHTS[0], num_parameters=10**14),))
    assert smallest_parallel(huge, machine(), GivenMemory(), Parallel()) is None


def test_more_tensor_ranks_than_a_node_has():
    with pytest.raises(ValueError, match=r"at most the 4 accelerators of a node of Round, got 8; parallel\.pipeline"):
        fits(hardware=machine(accelerators_per_node=4), tensor=8)


def cached_in(dtype):
    return replace(LLAMA, groups=tuple(replace(group, dtype=dtype) for group in LLAMA.groups))


def weighing(dtype):
    return replace(LLAMA, weights=(replace(WEIGHTS[0], dtype=dtype),))


def test_a_cache_of_eight_bits_holds_twice_as_much():
    assert fits(model=cached_in("fp8_e4m3"), tensor=4).num_blocks == pytest.approx(2 * fits(tensor=4).num_blocks, abs=1)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (weighing("fp8"), "Round states no products in 8 bits: weights are held in fp8 and multiplied in 16"),
        (weighing("nvfp4"), "Round states no products in 4 bits: weights are held in nvfp4 and multiplied in 16"),
        (cached_in("fp8_e4m3"), "Round states no products in 8 bits: the cache is held in fp8_e4m3 and read into 16"),
    ],
)
def test_what_is_computed_in_sixteen_bits_is_said(model, said):
    assert fits(model=model, tensor=4).notes == (said,)
    able = machine(flops_8bit_per_s=1e12, flops_4bit_per_s=1e12)
    assert fits(model=model, hardware=able, tensor=4).notes == ()


@pytest.mark.parametrize(
    ("engine", "model", "message"),
    [
        (GivenMemory(), cached_in("nvfp4"), r"model\.kv_dtype=nvfp4: Round states no products in 4 bits .*fp8_e4m3"),
        (TensorRTLLM(), weighing("fp8"), r"model\.weights_dtype=fp8: .* engine=trtllm has no other kernels"),
        (TensorRTLLM(), cached_in("fp8_e4m3"), r"model\.kv_dtype=fp8_e4m3: .*; bf16 or int8 would do"),
    ],
)
def test_a_precision_that_the_hardware_lacks(engine, model, message):
    with pytest.raises(ValueError, match=message):
        fits(engine, model, tensor=4)
