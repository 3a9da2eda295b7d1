"""Caches inside models where things are unusual: lost keys, refused steps, inference mode, wrong rows, odd padding."""

import gc
import weakref
from copy import deepcopy

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers: python -m pip install -e '.[hf]'")

from transformers import DynamicCache, MistralConfig

from kvbench.integrations.transformers import KVBenchCache, use_attention
from kvbench.ledger import Ledger, LedgerError, OutOfMemory
from kvbench.plan.ops import Append, Reserve, Rows
from tests.support.catalogue import STRATEGIES, TINY, strategy
from tests.support.families import SIZES, from_config, generated, model_of, padded, prompt
from tests.test_contract import small

HOLDING = [name for name in STRATEGIES if name != "recompute"]


@pytest.fixture
def model():
    made = model_of("llama")
    use_attention(made)
    return made


@torch.no_grad()
def fed(model, cache, num_rows, num_tokens, **given):
    return model(input_ids=prompt(num_rows, num_tokens), past_key_values=cache, **given).logits


def test_keys_that_do_not_arrive_are_missed(model):
    """A configuration that says kvbench's attention, and a model that attends otherwise."""
    cache = KVBenchCache(small("dynamic"), deepcopy(model.config))
    model.set_attn_implementation("sdpa")
    with pytest.raises(RuntimeError, match="the new keys of layer 0 did not reach kvbench's attention as they were"):
        fed(model, cache, 1, 5)
    with pytest.raises(RuntimeError, match=r"did not reach.*reset\(\) the cache"):
        cache.get_mask_sizes(1, 0)


@pytest.mark.parametrize("name", HOLDING)
def test_inference_mode_may_come_and_go(name, model):
    cache = KVBenchCache(small(name), model.config, num_output_tokens=60)
    with torch.inference_mode():
        tokens = generated(model, cache, 12, input_ids=prompt(2, 20))
    tokens = generated(model, cache, 12, input_ids=torch.cat((tokens, prompt(2, 3)), dim=1))
    with torch.inference_mode():
        cache.reorder_cache(torch.tensor([1, 0]))
    fed(model, cache, 2, 1)
    assert cache.get_seq_length() == tokens.shape[1] - 1 + 1
    cache.close()


@pytest.mark.parametrize("name", ["dynamic", "async", "paged", "heavy_hitters"])
def test_a_cache_that_is_dropped_is_freed_at_once(name, model):
    cache = KVBenchCache(small(name), model.config)
    fed(model, cache, 1, 40)
    held = weakref.ref(cache.batch)
    gc.collect()
    gc.disable()
    try:
        del cache
        assert held() is None
    finally:
        gc.enable()


def test_a_closed_cache_begins_anew(model):
    cache = KVBenchCache(small("sinks"), model.config)
    expected = fed(model, cache, 1, 20)
    cache.close()
    assert cache.figures() == (0, 0, 0, 0, 0)
    assert torch.equal(fed(model, cache, 1, 20), expected)
    assert fed(model, KVBenchCache(small("sinks"), model.config), 3, 4).shape[0] == 3


def test_a_cache_is_not_copied(model):
    with pytest.raises(TypeError, match="batch_repeat_interleave"):
        deepcopy(KVBenchCache(small("sinks"), model.config))


def test_an_admission_that_is_refused_leaves_nothing(model):
    cache = KVBenchCache(small("sinks"), model.config, budget_bytes=1000)
    for num_rows in (1, 1, 3):
        with pytest.raises(OutOfMemory):
            fed(model, cache, num_rows, 4)
        assert (cache.get_seq_length(), cache.figures().held_bytes) == (0, 0)


def test_figures_are_of_the_batch(model):
    cache = KVBenchCache(small("concat"), model.config)
    for _ in range(2):
        fed(model, cache, 1, 4)
        fed(model, cache, 1, 1)
        # 5 slots of 2 x 2 x 2 x 16 x 4 bytes, and 4 of one tensor of 2 x 16 x 4 twice while the last was replaced.
        assert cache.figures()[:4] == (5 * 512, 5 * 512 + 4 * 128, 1, 5)
        cache.reset()


@pytest.mark.parametrize("index", [[2], [-3], [0, 5]])
def test_rows_that_there_are_not_are_refused(index, model):
    cache = KVBenchCache(small("dynamic"), model.config)
    fed(model, cache, 2, 4)
    with pytest.raises(ValueError, match="the batch has rows 0 to 1, got"):
        cache.batch_select_indices(torch.tensor(index))
    cache.batch_select_indices(torch.tensor([-1]))
    assert torch.allclose(cache.batch.sequences[0].full_context(0)[0], _keys(model, 2, 4)[1:], atol=1e-6)


def _keys(model, num_rows, num_tokens):
    full = DynamicCache()
    fed(model, full, num_rows, num_tokens)
    return full.layers[0].keys


def test_padding_among_what_is_cropped_is_refused(model):
    cache = KVBenchCache(strategy("sinks", num_sinks=4, window=30), model.config)
    with torch.no_grad():
        model(**padded(9, 0, 5), past_key_values=cache)
        with pytest.raises(LedgerError, match="padding is held behind its first tokens"):
            cache.crop(-1)
        model(input_ids=prompt(2, 3), past_key_values=cache)
        cache.crop(-3)
    assert cache.get_seq_length() == 9


def test_who_says_that_it_can_be_cropped_can_be(model):
    if not hasattr(DynamicCache, "is_croppable"):
        pytest.skip("caches of this transformers do not say whether they can be cropped")
    for name in HOLDING:
        chosen = small(name)
        cache = KVBenchCache(chosen, model.config)
        is_kept = chosen.lossless or name == "fp8"  # what is cast is cast once
        assert cache.is_croppable == (is_kept and any(area.name == "main" for area in chosen.areas)), name


def mask_of(*rows):
    return torch.tensor([[int(letter != ".") for letter in row] for row in rows])


@pytest.mark.parametrize("name", ["sinks", "snapkv", "heavy_hitters", "compressed", "streaming"])
@pytest.mark.parametrize("turns", [[("xxxx..",)], [("..xx.x",)], [("..xxxx",), (".x",)]], ids=str)
@torch.no_grad()
def test_padding_behind_tokens_is_refused_by_who_evicts(name, turns, model):
    cache, seen = KVBenchCache(small(name), model.config), ""
    for number, (row,) in enumerate(turns):
        seen += row
        given = {"input_ids": prompt(2, len(row)), "attention_mask": mask_of(seen, "x" * len(seen))}
        if number < len(turns) - 1:
            model(**given, past_key_values=cache)
        else:
            with pytest.raises(ValueError, match="would keep padding in place of tokens"):
                model(**given, past_key_values=cache)
    model(**given, past_key_values=KVBenchCache(small("int8"), model.config))


@torch.no_grad()
def test_left_padding_may_come_in_several_chunks_where_no_first_tokens_are_kept(model):
    cache = KVBenchCache(small("heavy_hitters"), model.config)
    given = padded(30, 0, 20)
    for start in range(0, 30, 6):
        end = start + 6
        cut = {"input_ids": given["input_ids"][:, start:end], "attention_mask": given["attention_mask"][:, :end]}
        model(**cut, past_key_values=cache)
    assert cache.get_seq_length() == 30


@torch.no_grad()
def test_one_mask_may_be_for_all_rows(model):
    mask = torch.ones(1, 1, 9, 9, dtype=torch.bool).tril()
    mask[..., :3] = False
    logits = model(
        input_ids=prompt(2, 9), attention_mask=mask, past_key_values=KVBenchCache(small("sinks"), model.config)
    ).logits
    full = model(input_ids=prompt(2, 9), attention_mask=mask, past_key_values=DynamicCache()).logits
    assert torch.allclose(logits[:, 3:], full[:, 3:], atol=1e-4)


def test_windows_hide_whatever_is_moved_near():
    made = from_config(MistralConfig(**SIZES, sliding_window=12))
    use_attention(made)
    with pytest.raises(ValueError, match="positions='compacted' is for models without sliding windows"):
        fed(made, KVBenchCache(small("sinks"), made.config, positions="compacted"), 1, 4)
    made = from_config(MistralConfig(**SIZES, sliding_window=None))
    use_attention(made)
    fed(made, KVBenchCache(small("sinks"), made.config, positions="compacted"), 1, 4)


def test_the_longest_that_a_cache_holds():
    config = model_of("llama").config
    told = {"static": {"max_seq_len": 8192}, "hierarchical": {"slow_capacity": 8192}, "sinks": {}, "concat": {}}
    longest = {name: KVBenchCache(strategy(name, **own), config).get_max_length() for name, own in told.items()}
    assert longest == {"static": 8192, "hierarchical": 9216, "sinks": -1, "concat": -1}


@pytest.mark.parametrize("name", ["static", "dynamic", "paged"])
def test_what_is_left_to_a_run_is_the_models_context(name):
    model = model_of("llama")
    cache = KVBenchCache(strategy(name), model.config)
    fed(model, cache, 1, 4)
    context = model.config.max_position_embeddings
    if name == "paged":
        assert cache.strategy.areas[0].layout.pool_tokens == -(-context // 16) * 16
    else:
        assert cache.get_max_length() == context


def test_pools_count_whole_where_rows_change():
    """A pool of 64 slots of 128 bytes a row, 2 layers: 4 rows hold 32,768 bytes; one tensor of one row has 2,048."""
    areas = small("paged").areas
    layout = areas[0].layout
    area = type(areas[0])(layout=type(layout)(layout.num_tokens, 64))
    slot = TINY.bytes_per_token
    staging = 1024 * slot // 2 * 4
    tensor = 64 * TINY.plain.num_kv_heads * TINY.plain.head_dim * 4
    for budget, fits in ((4 * 64 * slot + staging + tensor, True), (4 * 64 * slot + staging + tensor - 1, False)):
        ledger = Ledger(TINY, budget, (area,), 4)
        ledger.open(0)
        ledger.book((Reserve(0, layout.num_tokens), Append(0, 1)))
        if fits:
            ledger.book((Rows(0, 1),))
            assert ledger.held_bytes == 64 * slot + staging // 4
        else:
            with pytest.raises(OutOfMemory, match=f"{4 * 64 * slot + staging + tensor:,}"):
                ledger.book((Rows(0, 1),))
