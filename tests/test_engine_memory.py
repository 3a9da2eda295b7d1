"""A rank's memory in engines: the parts that they printed at their start, from public logs, and how they add up."""

import json
from dataclasses import replace

import pytest

from kvbench.engine.ideal import Ideal
from kvbench.engine.profiling import body_bytes, graph_sizes, graphs_bytes, sampler_bytes
from kvbench.engine.sglang import SGLang
from kvbench.engine.trtllm import TensorRTLLM
from kvbench.engine.vllm import VLLM
from kvbench.model.accelerator import Accelerator
from kvbench.model.groups import LayerGroup
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel
from kvbench.model.precision import in_precision
from kvbench.model.published import read_model
from kvbench.model.ranks import rank_of
from kvbench.model.weights import WeightPart
from tests.support.measurements import measurement

GIB = 2**30
ENGINES = [VLLM(), VLLM(version="0.11"), SGLang(), TensorRTLLM(), Ideal()]


def board(gib, name="Board"):
    return Accelerator(name=name, memory_bytes=int(gib * GIB))


def published(folder, dtype=None):
    """A published model, in another precision of weights."""
    model = read_model(json.loads(measurement(f"configs/{folder}/config.json").read_text(encoding="utf-8")))
    return in_precision(model, dtype)


def tiny(**changed):
    """1,000 parameters, two layers, hidden states of 8 and feed-forward parts of 32, a vocabulary of 100."""
    figures = {
        "name": "Tiny",
        "groups": (LayerGroup(kind="full", layers=(0, 1), num_heads=2, num_kv_heads=1, key_dim=4, value_dim=4),),
        "weights": (WeightPart(name="embedding", kind="embedding", num_parameters=1_000),),
        "num_layers": 2,
        "hidden_size": 8,
        "intermediate_size": 32,
        "vocab_size": 100,
        "max_tokens": 50,
    }
    return Model(**figures | changed)


# version, GiB in all, share, longest, ranks; printed: weights, activation, left for the cache
PRINTED = [
    ("meta-llama--Llama-3.1-8B", None, "0.6.4", 23.58, 20_000, 1, 14.9888, 2.07, 3.81),
    ("meta-llama--Llama-3.1-8B", None, "0.6.4", 23.58, 29_000, 1, 14.9888, 2.99, 2.89),
    ("meta-llama--Llama-3.1-70B", "fp8", "0.11.0", 79.18, 16_000, 2, 33.88, 4.84, 32.0),
    ("openai--gpt-oss-20b", None, "0.11.0", 79.18, 16_000, 1, 13.47, 7.38, 50.28),
]


@pytest.mark.parametrize("line", PRINTED)
def test_parts_that_vllm_printed(line):
    folder, dtype, version, total, longest, ranks, weights, activation, available = line
    parallel = Parallel(tensor=ranks)
    rank = rank_of(published(folder, dtype), parallel)
    engine = VLLM(version=version, max_model_len=longest, gpu_memory_utilization=0.9)
    memory = engine.memory(rank, board(total), parallel)
    assert memory.weights_bytes / GIB == pytest.approx(weights, rel=0.02)
    assert memory.activation_bytes / GIB == pytest.approx(activation, rel=0.03)
    assert memory.available_bytes / GIB == pytest.approx(available, rel=0.06)


def test_weights_are_loaded_with_their_tables_of_positions():
    """0.0313 GiB: 131,072 positions of 128 numbers of 16 bits."""
    memory = VLLM().memory(published("meta-llama--Llama-3.1-8B"), board(79.18))
    assert memory.weights_bytes == 2 * 8_030_261_248 + 131_072 * 128 * 2
    assert memory.weights_bytes / GIB == pytest.approx(14.9888, abs=0.0001)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_left_is_the_budget_less_all_parts(engine):
    memory = engine.memory(tiny(), board(24), Parallel(tensor=2))
    parts = memory.weights_bytes + memory.activation_bytes + memory.graphs_bytes + memory.runtime_bytes
    assert memory.available_bytes == memory.budget_bytes - parts > 0
    assert memory.budget_bytes <= memory.total_bytes == 24 * GIB
    assert engine.memory(tiny(), board(12), Parallel(tensor=2)).available_bytes < memory.available_bytes


def test_weights_beyond_the_memory_leave_less_than_nothing():
    part = WeightPart(name="all", kind="body", num_parameters=20 * 10**9)
    for engine in ENGINES:
        assert engine.memory(tiny(weights=(part,)), board(24)).available_bytes < 0


def test_a_step_of_layers_by_hand():
    """10 tokens of 16 bits: three of 32 and three hidden states of 8. Experts: 2 of width 16, gate and up in 32."""
    assert body_bytes(tiny(), 10) == 2 * 10 * (3 * 32 + 3 * 8)
    experts = WeightPart(
        name="e", kind="experts", num_parameters=3 * 8 * 16, num_experts=4, num_active=2, layers=(0, 1)
    )
    mixture = tiny(weights=(experts,), intermediate_size=0)
    assert body_bytes(mixture, 10) == 2 * 10 * (2 * (32 + 16) + 3 * 8)
    latent = LayerGroup(kind="latent", layers=(0, 1), num_heads=2, num_kv_heads=1, key_dim=6, value_dim=4)
    assert body_bytes(tiny(groups=(latent,)), 10) == 2 * 10 * (3 * 32 + 3 * 8) + 2 * (8 * 50) * 2 * 256


def test_sampling_by_hand_and_not_where_there_is_no_head():
    """4 sequences of 100 logits; hidden states of 8 for each of 10 tokens."""
    assert sampler_bytes(tiny(), 4, 10, 38) == 4 * 100 * 38 + 2 * 8 * 10
    assert sampler_bytes(tiny(), 40, 10, 38) == 10 * 100 * 38 + 2 * 8 * 10
    body = WeightPart(name="attention", kind="body", num_parameters=10, layers=(0,))
    assert sampler_bytes(tiny(weights=(body,)), 4, 10, 38) == 0


def test_sampling_no_longer_sorts_since_0_17():
    model = published("openai--gpt-oss-20b")
    before, after = (VLLM(version=each, max_num_seqs=1_024).memory(model, board(79)) for each in ("0.16", "0.17"))
    assert before.activation_bytes > 3 * after.activation_bytes


def test_graphs_are_in_the_budget_since_0_21_and_not_of_eager_steps():
    assert [graph_sizes(most) for most in (1, 2, 8, 16, 256, 512)] == [1, 2, 4, 5, 35, 51]
    memory = {each: VLLM(version=each).memory(tiny(), board(79)) for each in ("0.20", "0.21")}
    assert (memory["0.20"].graphs_bytes, memory["0.21"].graphs_bytes) == (0, graphs_bytes(tiny(), 1_024))
    assert VLLM(enforce_eager=True).memory(tiny(), board(79)).graphs_bytes == 0


def test_a_drafter_brings_a_layer_of_weights():
    """Of 10,000 parameters in two layers one has 5,000; its input is two hidden states of 8 wide: 128 more."""
    body = WeightPart(name="body", kind="body", num_parameters=5_000, layers=(0, 1), dtype="fp8")
    model = tiny(weights=(body,))
    for engine, drafted in (
        (VLLM(), VLLM(num_speculative_tokens=1)),
        (SGLang(), SGLang(speculative_algorithm="EAGLE")),
    ):
        with_it, without = (each.memory(model, board(24)).weights_bytes for each in (drafted, engine))
        assert with_it - without == 2 * (5_000 + 2 * 8 * 8)


def test_sglang_leaves_steps_and_graphs_outside_of_its_share():
    """Of 79.18 GiB 0.75 are taken before it looks; 0.8 of the rest, less weights, is the cache."""
    memory = SGLang(mem_fraction_static=0.8).memory(tiny(), board(79.18))
    assert (memory.activation_bytes, memory.graphs_bytes) == (0, 0)
    assert memory.available_bytes == pytest.approx((79.18 - 0.75) * 0.8 * GIB - memory.weights_bytes, abs=2)


def test_sglangs_cache_of_a_printed_start():
    """Qwen3-235B-A22B in fp8 on four H100 at 0.93: 16.46 GiB; 235.1 billion parameters, 2 x 622 million in 16 bits."""
    table = WeightPart(name="tables", kind="body", num_parameters=2 * 151_936 * 4_096)
    body = WeightPart(name="body", kind="body", num_parameters=235_093_634_560 - 2 * 151_936 * 4_096, dtype="fp8")
    model = tiny(weights=tuple(replace(part, num_parameters=part.num_parameters // 4) for part in (table, body)))
    memory = SGLang(mem_fraction_static=0.93).memory(model, board(79.18), Parallel(tensor=4))
    assert memory.available_bytes / GIB == pytest.approx(16.46, rel=0.05)


def test_tensorrt_llm_takes_a_share_of_what_is_free():
    whole, half = (
        TensorRTLLM(free_gpu_memory_fraction=share).memory(tiny(), board(24)).available_bytes for share in (1.0, 0.5)
    )
    assert half == pytest.approx(whole / 2, abs=2)


def test_no_engine_takes_nothing_but_weights():
    memory = Ideal().memory(tiny(), board(24))
    assert memory.available_bytes == 24 * GIB - 2_000
