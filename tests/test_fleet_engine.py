"""Fleets that serve as an engine does, and models whose layers differ, over several accelerators: bytes by hand."""

from dataclasses import replace

import pytest

from kvbench.backend.choice import Conditions
from kvbench.configuration.composed import composed
from kvbench.configuration.errors import UsageError
from kvbench.configuration.model import geometry_of
from kvbench.configuration.parts import backend_of
from kvbench.engine.scheduling import Scheduling
from kvbench.engine.sglang import SGLang
from kvbench.engine.trtllm import COMPUTE_SHARE, STEP_S, TensorRTLLM
from kvbench.engine.vllm import VLLM
from kvbench.fleet.fleet import Fleet
from kvbench.fleet.serving import keeps_windows
from kvbench.strategy.paged import Paged
from kvbench.strategy.static import Static
from tests.support.fleet_models import columns_of

ONE = columns_of([(0, 100, 2)])


def fleet(model, hardware="h100", settings=None, **chosen):
    config = composed(
        {"scenario": "chat_poisson", "backend": "fleet", "model": model, "hardware": hardware, **chosen}, None, settings
    )
    return backend_of(config, geometry_of(config))


@pytest.mark.parametrize(
    ("model", "hardware", "tensor", "num_bytes"),
    [
        # 12 full layers and 12 with a window of 128, each of 8 KV heads of 64, K and V in 16 bits: 2,048 bytes a token.
        ("gpt_oss_20b", "h100", 1, 12 * 8_192 * 2_048 + 12 * 128 * 2_048),
        # 10 full layers and 52 with a window of 1,024, each of 16 KV heads of 128, 8 on a rank: 4,096 bytes.
        ("gemma3_27b", "h100", 2, 10 * 8_192 * 4_096 + 52 * 1_024 * 4_096),
        # A latent of 512 and a rotary part of 64 in each of 61 layers, whole on every rank.
        ("deepseek_v3", "h200", 8, 61 * 8_192 * (512 + 64) * 2),
        # 12 full layers, 2 KV heads of 256, one on a rank; 36 of 32 states of 128 · 128 and 3 inputs of 8,192 channels.
        ("qwen3_next_80b_a3b", "h100", 4, 12 * 8_192 * 1_024 + 36 * 2 * (32 * 128 * 128 + 8_192 * 3) // 4),
    ],
)
def test_a_sequence_of_8192_tokens_by_hand(model, hardware, tensor, num_bytes):
    server = fleet(model, hardware, parallel={"tensor": tensor})
    result = server.serve("static", Static(max_seq_len=8_192), ONE, server.memory_bytes).result
    assert (result.outcome.tolist(), result.totals.peak_bytes) == ([0], num_bytes)
    assert server.num_accelerators == tensor


def test_an_engine_says_what_memory_steps_blocks_and_pool_are():
    server = fleet("llama3_8b", engine="vllm")
    # vLLM's server from 70 GiB up; its pool at 0.92 of 79.18 GiB, less weights, activations and graphs.
    assert (server.max_batch, server.serving.scheduling.tokens) == (1_024, 8_192)
    pool = server.serving.pool
    paged = server.fitted(Paged(block_size=16, pool_tokens=None), ONE, server.memory_bytes)
    # One block is no sequence's.
    assert (paged.block_size, paged.pool_tokens) == (16, 16 * (pool.num_blocks - 1))
    assert pool.num_blocks == server.memory_bytes // (16 * 131_072)
    run = server.serve("paged", Paged(), ONE, server.memory_bytes)
    assert run.result.outcome.tolist() == [0]
    assert (run.facts["engine"], run.facts["pool_bytes"]) == ("vllm", pool.usable_bytes)


def test_an_engines_flags_are_the_fleets():
    server = fleet("llama3_8b", settings={"engine.max_num_seqs": 7, "engine.block_size": 32}, engine="vllm")
    assert server.max_batch == 7
    assert server.fitted(Paged(), ONE, server.memory_bytes).block_size == 32
    with pytest.raises(ValueError, match="block_size is 64, and engine=vllm has blocks of 32: say one"):
        server.fitted(Paged(block_size=64), ONE, server.memory_bytes)
    kept = Paged(block_size=64, pool_tokens=640, window_blocks="keep", prefix_caching=False)
    assert server.fitted(kept, ONE, server.memory_bytes) == kept


def test_without_an_engine_a_fleet_has_its_own():
    server = fleet("llama3_8b")
    assert (server.max_batch, server.serving.scheduling, server.serving.name) == (256, Scheduling(), "")
    assert server.serve("static", Static(max_seq_len=128), ONE, server.memory_bytes).facts["engine"] == ""


def test_states_take_half_of_the_memory_beside_blocks_at_most():
    server = fleet(
        "qwen3_next_80b_a3b", parallel={"tensor": 4}, settings={"engine.max_num_seqs": 10_000}, engine="vllm"
    )
    state_bytes = server.geometry.state_bytes
    assert server.max_batch == server.memory_bytes // 2 // state_bytes < 10_000
    paged = server.fitted(Paged(), ONE, server.memory_bytes)
    assert paged.pool_tokens * 12_288 <= server.memory_bytes - server.max_batch * state_bytes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend.max_batch": 64}, "backend: max_batch=64 says what engine=vllm decides: set engine.max_num_seqs and"),
        (
            {"backend.memory_fraction": 0.8},
            "memory_fraction=0.8 .* set engine.gpu_memory_utilization and leave it null",
        ),
        ({"backend.prefill_chunk_tokens": 512}, "prefill_chunk_tokens=512 .* set engine.max_num_batched_tokens and"),
    ],
)
def test_what_an_engine_decides_is_said_once(settings, message):
    with pytest.raises(UsageError, match=message):
        fleet("llama3_8b", settings=settings, engine="vllm")


def test_what_an_engine_lacks_or_leaves_nothing_of_is_told():
    with pytest.raises(UsageError, match="engine=ideal decides: it has no such setting; leave it null"):
        fleet("llama3_8b", settings={"backend.max_batch": 64}, engine="ideal")
    with pytest.raises(UsageError, match=r"engine=vllm leaves nothing of H100 SXM 80 GB for caches: weights, .* take"):
        fleet("llama3_70b", engine=VLLM())
    assert Fleet().max_batch is None


def test_an_engine_says_how_it_fills_a_step_and_what_its_host_takes():
    whole = fleet("llama3_8b", engine="trtllm")
    # A prompt is not cut, unless that is asked for.
    assert whole.serving.scheduling == Scheduling(8_192, 2_048, chunks=False, counts_decode=True, evicts=False)
    cut = fleet("llama3_8b", settings={"engine.enable_chunked_prefill": True}, engine="trtllm")
    assert cut.serving.scheduling.chunks
    alone = fleet("llama3_8b", engine="sglang")
    assert alone.serving.about.endswith("sglang, prompts first and alone, 8,192 tokens a step")
    mixed = fleet("llama3_8b", settings={"engine.enable_mixed_chunk": True}, engine="sglang")
    assert mixed.serving.about.endswith("8,192 tokens a step, decoding sequences' first among them")
    conditions = {"geometry": whole.geometry, "hardware": whole.machine, "engine": VLLM(step_s=1e-3)}
    assert Conditions(**conditions).machine.step_s == 1e-3
    # A step that is scheduled ahead waits for no host; others take what was measured, or what the machine's file says.
    sheet = replace(whole.machine, step_s=2e-4)
    engines = (VLLM(), VLLM(async_scheduling=False), VLLM(version="0.9"), TensorRTLLM(), SGLang())
    taken = [Conditions(geometry=whole.geometry, hardware=sheet, engine=each).machine.step_s for each in engines]
    assert taken == [0.0, 2e-4, 2e-4, STEP_S, 2e-4]
    engines = (VLLM(), TensorRTLLM(), TensorRTLLM(version="1.0.0rc3"), TensorRTLLM(version="0.20"))
    assert [each.reaches for each in engines] == [1.0, COMPUTE_SHARE, COMPUTE_SHARE, 1.0]
    said = TensorRTLLM(version="0.20", compute_share=0.5)
    shares = [
        Conditions(geometry=whole.geometry, hardware=alone.machine, engine=each).machine.kernels["products"]
        for each in (VLLM(), said)
    ]
    assert shares[1]["bfloat16"]["compute_share"] == 0.5 * shares[0]["bfloat16"]["compute_share"]
    assert Conditions(geometry=whole.geometry, hardware=whole.machine).machine is whole.machine


@pytest.mark.parametrize(
    ("version", "waits_for_end", "fits_prompts", "plans_steps"),
    [
        (None, False, True, True),
        ("0.19", False, True, True),
        ("0.18.1", False, False, True),
        ("0.7.3", True, False, False),
    ],
)
def test_vllms_rules_of_admission_are_those_of_its_version(version, waits_for_end, fits_prompts, plans_steps):
    rules = fleet("llama3_8b", engine=VLLM(version=version)).serving.scheduling
    assert (rules.waits_for_end, rules.fits_prompts, rules.plans_steps) == (waits_for_end, fits_prompts, plans_steps)


def test_windows_blocks_are_kept_where_nobody_says_otherwise():
    server = fleet("gpt_oss_20b")
    assert keeps_windows(Paged(), server.geometry, by_engine=False)
    assert server.fitted(Paged(), ONE, server.memory_bytes).window_blocks == "keep"
    result = server.serve("paged", Paged(), ONE, server.memory_bytes).result
    staged = 1024 * 2_048  # K and V of one layer
    assert result.totals.peak_bytes == 7 * 16 * 24 * 2_048 + staged
    assert not keeps_windows(Paged(window_blocks="keep"), server.geometry, by_engine=False)
    assert not keeps_windows(Paged(), server.geometry, by_engine=True)
    assert not keeps_windows(Paged(), fleet("llama3_8b").geometry, by_engine=False)
    with pytest.raises(ValueError, match=r"keep, or late, in a fleet, .*; got free, and gpt-oss-20B has"):
        server.serve("paged", Paged(window_blocks="free"), ONE, server.memory_bytes)
