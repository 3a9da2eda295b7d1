"""vLLM's pool by hand: pages, groups, blocks, and what is printed of them."""

from dataclasses import replace

import pytest

from kvbench.engine.vllm import VLLM
from kvbench.model.accelerator import Accelerator
from kvbench.model.parallel import Parallel
from tests.support.engine_models import (
    attention,
    every,
    gated_delta,
    gemma3_27b,
    gemma4_31b,
    gpt_oss,
    latent,
    model,
    plain,
    qwen3_5_27b,
)

GIB = 2**30
KIB = 2**10


def test_a_plain_model_has_one_group_of_blocks_of_16():
    pool = VLLM(max_model_len=20_000, version="0.11").pool(plain(32, 32, 8, 128), int(3.81 * GIB))
    assert pool.page_bytes == 16 * 131_072
    assert (pool.num_blocks, pool.num_groups, pool.num_tokens) == (1_950, 1, 31_200)
    assert pool.max_concurrency == 1_950 / 1_250
    assert pool.requests(20_000) == 1
    assert pool.requests(16) == 1_949  # one block is no sequence's
    assert pool.waste_bytes(16) == pool.padding_bytes(20_001) == 0
    assert pool.waste_bytes(20_001) == 15 * 131_072


def test_gemma_3_has_seven_groups_of_ten_layers_of_which_eight_are_none():
    engine = VLLM(version="0.11.0rc2.dev98", max_model_len=4_096, max_num_batched_tokens=8_192)
    pool = engine.pool(gemma3_27b(), int(109.86 * GIB))
    assert (pool.num_groups, pool.padding_layers, pool.page_bytes) == (7, 8, 10 * 128 * KIB)
    assert (pool.num_blocks, pool.num_tokens) == (89_997, 205_696)
    # 256 blocks of the full group; 6 window groups hold min(1,023 + 8,192, 4,096) tokens and a block more.
    assert pool.blocks_of(4_096) == 256 + 6 * 257
    assert pool.max_concurrency == 89_997 / 1_798
    assert pool.padding_bytes(4_096) == 8 * 257 * 128 * KIB


def test_gpt_oss_needs_what_its_refusal_says():
    engine = VLLM(version="0.11.0", max_model_len=131_072, max_num_batched_tokens=1_024)
    pool = engine.pool(gpt_oss(36), int(1.71 * GIB))
    assert (pool.num_groups, pool.padding_layers) == (2, 0)
    assert pool.blocks_of(131_072) == 8_192 + 73
    assert round(pool.sequence_bytes(131_072) / GIB, 3) == 4.540
    assert pool.requests(131_072) == 0


def test_of_nearly_as_many_layers_the_group_is_the_larger():
    drafted = VLLM(max_model_len=8_192, num_speculative_tokens=1, speculative_method="eagle3")
    pool = drafted.pool(gpt_oss(24), GIB)
    assert (pool.num_groups, pool.padding_layers) == (2, 1)  # 13 full, 12 of windows
    assert pool.page_bytes == 13 * 32 * KIB


@pytest.mark.parametrize(
    ("dtype", "drafts", "block_tokens"),
    [("bfloat16", 0, 784), ("fp8_e4m3", 0, 1_568), ("fp8_e4m3", 2, 1_600), ("fp8_e5m2", 3, 1_600)],
)
def test_states_raise_the_block_until_its_page_holds_one(dtype, drafts, block_tokens):
    engine = VLLM(max_model_len=262_144, num_speculative_tokens=drafts)
    assert engine.pool(qwen3_5_27b(dtype=dtype), GIB).block_tokens == block_tokens


def test_states_and_a_drafter_of_qwen3_5():
    engine = VLLM(
        version="0.23.1rc1.dev531", max_model_len=262_144, num_speculative_tokens=2, enable_prefix_caching=True
    )
    pool = engine.pool(qwen3_5_27b(dtype="fp8_e4m3"), int(48.6 * GIB))
    assert (pool.num_groups, pool.padding_layers) == (4, 3)  # 17 full, 48 states as 51
    assert pool.blocks_of(262_144) == 164 + 3 * (2 + 2)
    assert (pool.num_blocks, pool.num_tokens) == (936, 1_394_129)


def test_a_short_prompt_holds_a_block_of_each_group():
    pool = VLLM(max_model_len=2_048).pool(qwen3_5_27b(ranks=2), int(2.26 * GIB))
    assert pool.num_blocks == 94
    assert pool.blocks_of(12) == 1 + 3 * 2
    assert pool.requests(12) == 13
    assert pool.waste_bytes(12) > 0.9 * pool.sequence_bytes(12) / 2


@pytest.mark.parametrize(("mode", "blocks"), [("none", 3 + 3), ("align", 3 + 6), ("all", 3 + 9)])
def test_what_a_sequence_holds_of_its_states(mode, blocks):
    engine = VLLM(max_model_len=2_048, mamba_cache_mode=mode)
    pool = engine.pool(qwen3_5_27b(ranks=2), GIB)
    assert pool.block_tokens == (1_024 if mode == "all" else 784)
    assert pool.blocks_of(2_048) == (blocks if mode != "all" else 2 + 3 * 2)


def test_prefixes_of_models_with_states_are_kept_since_0_26():
    assert VLLM(version="0.25.1").resolved(None, qwen3_5_27b()).mamba_cache_mode == "none"
    assert VLLM(version="0.26").resolved(None, qwen3_5_27b()).mamba_cache_mode == "align"
    assert VLLM(version="0.19").resolved(None, plain(2, 2, 2, 64)).enable_prefix_caching


@pytest.mark.parametrize(
    ("name", "gib", "version", "limits"),
    [
        ("NVIDIA H100", 79, None, (8_192, 1_024)),
        ("NVIDIA A100-SXM4-80GB", 79, None, (2_048, 256)),
        ("NVIDIA L40S", 44, None, (2_048, 256)),
        ("NVIDIA B200", 178, "0.28", (8_192, 1_024)),
        ("NVIDIA B200", 178, None, (16_384, 1_024)),
        ("NVIDIA GB10", 119, "0.31", (8_192, 1_024)),
        ("NVIDIA GB10", 119, None, (2_048, 256)),
    ],
)
def test_limits_of_a_step_are_those_of_the_hardware(name, gib, version, limits):
    accelerator = Accelerator(name=name, memory_bytes=gib * GIB)
    found = VLLM(version=version).resolved(accelerator, plain(2, 2, 2, 64, max_tokens=8_192))
    assert (found.max_num_batched_tokens, found.max_num_seqs) == limits
    assert found.gpu_memory_utilization == 0.92


def test_before_0_8_whole_prompts_are_a_step():
    v0 = VLLM(version="0.6.4")
    assert v0.resolved(None, plain(2, 2, 2, 64, max_tokens=29_000)).max_num_batched_tokens == 29_000
    assert v0.resolved(None, plain(2, 2, 2, 64, max_tokens=131_072)).max_num_batched_tokens == 2_048
    assert v0.resolved(None, plain(2, 2, 2, 64)).gpu_memory_utilization == 0.9


def test_latents_beside_states_have_blocks_of_multiples_of_128():
    held = qwen3_5_27b().groups[1]
    mixed = model(replace(latent(64).groups[0], layers=every(64, 4)), held)
    state_bytes = sum(tensor.num_bytes for tensor in held.state)
    for version, step in (("0.26", 64), ("0.27", 128)):
        found = VLLM(version=version, max_model_len=8_192).pool(mixed, GIB).block_tokens
        assert found == step * -(-state_bytes // (step * 1_152))


def test_windows_with_smaller_pages_get_larger_blocks():
    pool = VLLM(max_model_len=163_840, max_num_batched_tokens=8_192).pool(gemma4_31b(), GIB)
    full, window = pool.parts[0].needs
    assert (full.block_tokens, window.block_tokens) == (32, 16)
    assert pool.page_bytes == 10 * 16 * 16 * 2 * 256 * 2
    assert pool.padding_bytes(163_840) == 0


def test_pages_that_do_not_divide_are_padded():
    uneven = model(attention((0, 2), 6, 3, 64), attention((1, 3), 4, 2, 64, window=32))
    pool = VLLM(max_model_len=64, max_num_batched_tokens=64).pool(uneven, 16 * 768 * 2 * 10)
    assert pool.num_blocks == 10
    assert pool.padding_bytes(64) == (4 + 1) * 2 * 16 * (768 - 512)


def test_layers_of_one_kind_need_no_equal_pages():
    pool = VLLM(max_model_len=64).pool(model(attention((0, 1), 6, 3, 64), attention((2,), 2, 2, 64)), 10 * 16 * 2_048)
    assert (pool.num_groups, pool.num_blocks) == (1, 10)
    assert pool.page_bytes == 16 * (2 * 768 + 512)


def test_latents_keep_blocks_of_64_and_fp8_beside_an_indexer_656_bytes():
    assert VLLM(max_model_len=64).pool(latent(61), GIB).page_bytes == 64 * 61 * 1_152
    assert VLLM(max_model_len=64).pool(latent(61, index_bytes=132), GIB).page_bytes == 64 * 61 * (1_152 + 132)
    sparse = latent(61, index_bytes=132, dtype="fp8_e4m3")
    assert VLLM(max_model_len=64).pool(sparse, GIB).page_bytes == 64 * 61 * (656 + 132)


def test_decode_context_divides_tokens_and_multiplies_what_is_printed():
    engine, ranks = VLLM(version="0.11.1", max_model_len=131_072), Parallel(tensor=8, decode_context=8)
    alone, divided = (engine.pool(latent(61), int(46.8 * GIB), parallel) for parallel in (None, ranks))
    assert alone.num_blocks == divided.num_blocks == 11_173
    assert divided.num_tokens == 8 * alone.num_tokens
    assert divided.blocks_of(131_072) == 131_072 // 8 // 64
    with pytest.raises(ValueError, match=r"decode_context is 1 where layers have windows"):
        engine.pool(gemma3_27b(), GIB, ranks)


@pytest.mark.parametrize(
    ("version", "asynchronous", "window"), [("0.25.1", None, 2_113), ("0.26", None, 4_161), ("0.26", False, 2_113)]
)
def test_windows_hold_what_is_in_flight_since_0_26(version, asynchronous, window):
    """Of a model of 10 layers of full attention and 50 of windows: vllm-project/vllm#49878 has these figures."""
    engine = VLLM(version=version, max_model_len=262_144, max_num_batched_tokens=32_768, async_scheduling=asynchronous)
    pool = engine.pool(gemma4_31b(), GIB)
    assert pool.blocks_of(262_144) == 8_192 + 5 * window
    assert pool.page_bytes == 10 * 256 * KIB
    assert round(pool.sequence_bytes(262_144) / GIB, 2) == (70.79 if window == 4_161 else 45.79)


def test_what_is_printed_changed_its_meaning():
    before, after = (
        VLLM(version=version, max_model_len=65_536).pool(qwen3_5_27b(), 10 * GIB)
        for version in ("0.20.2rc1.dev128", "0.20.2rc1.dev129")
    )
    assert before.num_blocks == after.num_blocks
    assert before.num_tokens == before.num_blocks // 4 * 784
    assert after.num_tokens == int(after.max_concurrency * 65_536)


def test_before_windows_had_groups_of_their_own_they_were_full():
    old = VLLM(version="0.8.5", max_model_len=8_192).pool(gemma3_27b(), GIB)
    assert (old.num_groups, old.page_bytes) == (1, 62 * 128 * KIB)
    off = VLLM(disable_hybrid_kv_cache_manager=True, max_model_len=8_192).pool(gemma3_27b(), GIB)
    assert off.page_bytes == old.page_bytes


def test_chunks_are_kept_whole_but_where_blocks_of_their_own_are_asked_for():
    llama4 = model(attention(every(48, 4), 40, 8, 128), attention(every(48, 4, but=True), 40, 8, 128, chunk=8_192))
    asked = {"version": "0.25", "max_model_len": 131_072, "max_num_batched_tokens": 2_048}
    own = VLLM(**asked, disable_hybrid_kv_cache_manager=False).pool(llama4, GIB)
    assert own.blocks_of(131_072) == 8_192 + 3 * (8_192 + 2_048) // 16  # no block more
    whole = VLLM(**asked).pool(llama4, GIB)
    assert (whole.num_groups, whole.blocks_of(131_072), whole.page_bytes) == (1, 8_192, 48 * 16 * 4_096)


def test_blocks_that_others_saw():
    """Of Qwen3.5-4B on one accelerator, vllm-project/vllm#40696; of MiMo-V2-Flash on 8, padding layers of a start."""
    small = gated_delta(32, kv_heads=4, value_heads=32)
    assert VLLM(max_model_len=8_192).pool(small, GIB).block_tokens == 528
    mimo = model(attention(tuple(range(9)), 8, 1, 160), attention(tuple(range(9, 48)), 8, 1, 160, window=128))
    engine = VLLM(version="0.31.1rc1.dev50", max_model_len=262_144, max_num_batched_tokens=8_192)
    pool = engine.pool(mimo, int(49.18 * GIB))
    assert (pool.padding_layers, pool.num_groups) == (6, 6)
    assert pool.num_tokens == pytest.approx(6_969_972, rel=0.0002)


def test_more_sequences_than_blocks_are_refused_where_each_needs_a_state():
    """vllm-project/vllm#34094; a printed start was refused with 256 sequences on 184 blocks."""
    pool = VLLM(max_model_len=8_192, num_gpu_blocks=184).pool(qwen3_5_27b(), GIB)
    (refusal,) = VLLM(max_num_seqs=256).notes(pool)
    assert "max_num_seqs 256 and 184 blocks" in refusal
    for engine in (VLLM(max_num_seqs=184), VLLM(max_num_seqs=256, enforce_eager=True), VLLM(version="0.16")):
        assert engine.notes(pool) == ()
    assert VLLM(max_num_seqs=256).notes(VLLM(max_model_len=64, num_gpu_blocks=8).pool(gemma3_27b(), GIB)) == ()


def test_blocks_may_be_given_and_memory_may_be_none():
    assert VLLM(max_model_len=64, num_gpu_blocks=7).pool(plain(1, 1, 1, 64), GIB).num_blocks == 7
    nothing = VLLM(max_model_len=64).pool(plain(1, 1, 1, 64), -GIB)
    assert (nothing.num_blocks, nothing.num_tokens, nothing.requests(1)) == (0, 0, 0)


def test_a_model_without_a_limit_asks_for_one():
    with pytest.raises(ValueError, match="set max_model_len"):
        VLLM().pool(plain(1, 1, 1, 64), GIB)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"gpu_memory_utilization": 1.2}, "engine.gpu_memory_utilization"),
        ({"block_size": 0}, "engine.block_size"),
        ({"mamba_cache_mode": "aligned"}, "Did you mean 'align'"),
        ({"speculative_method": "mpt"}, "Did you mean 'mtp'"),
    ],
)
def test_a_wrong_setting_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        VLLM(**setting)
