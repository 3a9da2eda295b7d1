"""What all engines' pools have in common, and the rules of those other than vLLM."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.engine.ideal import Ideal
from kvbench.engine.sglang import SGLang
from kvbench.engine.trtllm import TensorRTLLM
from kvbench.engine.version import since
from kvbench.engine.vllm import VLLM
from tests.support.engine_models import gemma3_27b, gpt_oss, latent, plain, qwen3_5_27b

GIB = 2**30
MODELS = {
    "plain": plain(32, 32, 8, 128),
    "gemma3": gemma3_27b(),
    "gpt_oss": gpt_oss(36),
    "qwen3_5": qwen3_5_27b(),
    "latent": latent(61, index_bytes=132),
}
ENGINES = {
    "vllm": VLLM(max_model_len=131_072),
    "sglang": SGLang(context_length=131_072),
    "trtllm": TensorRTLLM(max_seq_len=131_072, max_batch_size=64),
    "ideal": Ideal(max_model_len=131_072),
}


@given(
    engine=st.sampled_from(sorted(ENGINES)),
    name=st.sampled_from(sorted(MODELS)),
    available_bytes=st.integers(0, 200 * GIB),
    more=st.integers(0, 10 * GIB),
    num_tokens=st.integers(1, 131_072),
)
def test_requests_hold_no_more_than_there_is(engine, name, available_bytes, more, num_tokens):
    model, engine = MODELS[name], ENGINES[engine]
    pool = engine.pool(model, available_bytes)
    fitting = pool.requests(num_tokens)
    assert pool.num_bytes <= available_bytes
    assert fitting * pool.sequence_bytes(num_tokens) <= pool.num_bytes
    assert engine.pool(model, available_bytes + more).requests(num_tokens) >= fitting
    assert pool.requests(num_tokens + 1) <= fitting
    assert 0 <= pool.padding_bytes(num_tokens) <= pool.sequence_bytes(num_tokens)


@given(
    name=st.sampled_from(sorted(MODELS)), available_bytes=st.integers(0, 200 * GIB), num_tokens=st.integers(1, 131_072)
)
def test_ideal_wastes_nothing_and_fits_at_least_what_engines_do(name, available_bytes, num_tokens):
    model, ideal = MODELS[name], ENGINES["ideal"].pool(MODELS[name], available_bytes)
    assert ideal.waste_bytes(num_tokens) == ideal.padding_bytes(num_tokens) == 0
    assert ideal.requests(num_tokens) == available_bytes // model.held_bytes(num_tokens)
    for engine in ("vllm", "trtllm"):
        assert ENGINES[engine].pool(model, available_bytes).requests(num_tokens) <= ideal.requests(num_tokens)


def test_ideal_counts_tokens():
    pool = Ideal(max_model_len=1_000).pool(plain(2, 2, 2, 64), 1_000_000)
    assert pool.page_bytes == 2 * 2 * 2 * 64 * 2
    assert (pool.num_blocks, pool.num_tokens, pool.blocks_of(7), pool.requests(100)) == (976, 976, 7, 9)


def test_sglang_counts_tokens_of_one_cell():
    pool = SGLang(context_length=4_096).pool(latent(61), int(160.63 * GIB))
    assert pool.page_bytes == 70_272
    assert (pool.num_tokens, pool.requests(4_096)) == (2_454_393, 599)
    paged = SGLang(context_length=4_096, page_size=64).pool(latent(61), int(160.63 * GIB))
    assert paged.num_tokens == 2_454_393 // 64 * 64


def test_sglang_has_two_pools_where_there_are_windows():
    pool = SGLang(context_length=8_192).pool(gpt_oss(36), 10**10)
    full, window = pool.parts
    assert full.block_bytes == window.block_bytes == 18 * 2_048
    assert full.num_blocks == pool.num_tokens == int(10**10 // (18 * 2_048 * 1.8))
    assert window.num_blocks == int(0.8 * pool.num_tokens)
    assert window.blocks_of(8_192) == 128 + 128 + 2
    whole = SGLang(context_length=8_192, disable_hybrid_swa_memory=True).pool(gpt_oss(36), 10**10)
    assert (len(whole.parts), whole.page_bytes) == (1, 36 * 2_048)


def test_sglang_has_slots_for_states_that_bind_before_tokens_do():
    model = qwen3_5_27b()
    pool = SGLang(context_length=8_192).pool(model, 20 * GIB)
    tokens, states = pool.parts
    assert states.block_bytes == model.state_bytes
    assert states.num_blocks == 20 * GIB * 9 // 19 // model.state_bytes
    assert tokens.num_blocks == (20 * GIB - states.num_blocks * model.state_bytes) // 65_536
    assert pool.requests(100) == (states.num_blocks - 1) // 3
    alone = SGLang(context_length=8_192, disable_radix_cache=True).pool(model, 20 * GIB)
    assert alone.requests(100) == states.num_blocks - 1


def test_sglang_pays_for_a_drafters_layer_and_states():
    pool = SGLang(context_length=64, speculative_algorithm="EAGLE").pool(latent(61), GIB)
    assert pool.page_bytes == 62 * 1_152
    drafted = SGLang(context_length=8_192, speculative_algorithm="NEXTN", speculative_num_draft_tokens=4)
    tokens, states = drafted.pool(qwen3_5_27b(), 20 * GIB).parts
    assert states.blocks_of(1) == 3 + 4
    assert tokens.block_bytes == 17 * 4_096


def test_tensorrt_llm_prints_its_blocks():
    pool = TensorRTLLM(max_seq_len=40_960).pool(plain(28, 16, 8, 128), int(68.69 * GIB))
    assert (pool.block_tokens, pool.num_blocks) == (32, 20_096)
    assert pool.num_tokens == 20_096 * 32
    old = TensorRTLLM(version="0.8", tokens_per_block=128, max_seq_len=34_816).pool(plain(32, 8, 2, 128), 956_301_312)
    assert (old.num_blocks, old.num_tokens, old.requests(34_816)) == (228, 29_184, 0)


def test_tensorrt_llm_holds_states_of_its_largest_batch():
    pool = TensorRTLLM(max_seq_len=8_192, max_batch_size=8).pool(qwen3_5_27b(), 20 * GIB)
    assert pool.requests(100) == 8


@pytest.mark.parametrize(
    ("version", "first", "told"),
    [
        ("0.20.1rc1.dev16", "0.20.2rc1.dev129", False),
        ("0.20.2rc1.dev129", "0.20.2rc1.dev129", True),
        ("0.20.2", "0.20.2rc1.dev129", True),
        ("0.11.2rc1+rhai0", "0.11.2", False),
        ("0.21.0", "0.21", True),
        ("0.9", "0.10", False),
        ("1.0.post1", "1.0", True),
        ("0.21.0.dev3", "0.21.0rc1", False),
    ],
)
def test_versions_are_ordered(version, first, told):
    assert since(version, first) is told


def test_what_is_no_version_is_refused():
    with pytest.raises(ValueError, match=r"a version such as 0\.20\.2"):
        VLLM(version="newest")
    with pytest.raises(ValueError, match=r"a text such as '0\.20\.2', in quotes, got 0\.2"):
        VLLM(version=0.20)
