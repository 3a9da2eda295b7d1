"""Lossy strategies inside models: what is evicted is as if masked out of full attention, and padding is not kept."""

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers: python -m pip install -e '.[hf]'")

import torch.nn.functional as F
from transformers import DynamicCache
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from kvbench.integrations.transformers import KVBenchCache, layer, use_attention
from kvbench.integrations.transformers.rotation import turned
from tests.support.catalogue import STRATEGIES, strategy
from tests.support.families import CONFIGS, from_config, generated, model_of, padded, prompt, softcapped
from tests.test_contract import small

EVICTING = ["compressed", "heavy_hitters", "hierarchical_access", "sinks", "snapkv", "streaming"]
ROUNDING = ["fp8", "int2", "int2_naive", "int4", "int8", "sinks_int4"]
STEPS = (30, 1, 1, 9, *[1] * 20)


def test_every_lossy_strategy_is_here():
    lossy = {name for name in STRATEGIES if name != "recompute" and not small(name).lossless}
    assert lossy - {"adaptive"} <= {*EVICTING, *ROUNDING}  # adaptive does as one of these


class Kept:
    """Notes, at each attention of a cache, which positions of each row and head it reads."""

    def __init__(self, monkeypatch):
        self.found = []
        attend = layer.attend

        def noting(module, sequence, query, num_kv_heads, sight, **kwargs):
            self.found.append(self._of(sequence, query.shape, num_kv_heads, sight))
            return attend(module, sequence, query, num_kv_heads, sight, **kwargs)

        monkeypatch.setattr(layer, "attend", noting)

    @staticmethod
    def _of(sequence, shape, num_kv_heads, sight):
        kept = torch.zeros(shape[0], num_kv_heads, sequence.num_seen, dtype=torch.bool)
        for _, piece in sequence.pieces(0):
            positions = piece.positions
            if isinstance(positions, range):
                positions = torch.tensor(list(positions)).expand(shape[0], num_kv_heads, -1)
            positions = positions.long()
            if sight.places is not None:
                places, moved = sight.places.unsqueeze(1).expand(-1, num_kv_heads, -1), sight.places.shape[1]
                at = places.gather(2, positions.clamp(max=moved - 1))
                positions = torch.where(positions < moved, at, positions)
            kept.scatter_(2, positions, True)
        return shape[2], kept


def masked_attention(found, module, query, key, value, attention_mask, scaling=None, **kwargs):
    """Full attention, of which what was noted is let through."""
    group, num_queries = query.shape[1] // key.shape[1], query.shape[2]
    parts = []
    while num_queries:
        count, kept = found.pop(0)
        wide = F.pad(kept, (0, key.shape[2] - kept.shape[2])).unsqueeze(2)
        parts.append(wide.expand(-1, -1, count, -1))
        num_queries -= count
    mask = torch.cat(parts, dim=2).repeat_interleave(group, dim=1)
    if attention_mask is None:
        attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril(key.shape[2] - query.shape[2])
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask & attention_mask, scale=scaling)
    return output.nan_to_num(0.0).transpose(1, 2).contiguous(), None


def logits(model, cache, steps, paddings):
    """Logits of each step, and where they are of no padding."""
    ids, found = prompt(len(paddings), sum(steps)), []
    mask = torch.ones_like(ids)
    for row, count in enumerate(paddings):
        mask[row, :count] = 0
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    done = 0
    with torch.no_grad():
        for count in steps:
            end = done + count
            given = {"input_ids": ids[:, done:end], "attention_mask": mask[:, :end]}
            output = model(**given, position_ids=positions[:, done:end], past_key_values=cache).logits
            found.append(output[mask[:, done:end].bool()])
            done = end
    return torch.cat(found)


@pytest.mark.parametrize("paddings", [(0,), (0, 0), (0, 11, 23)], ids=["one row", "two rows", "left-padded"])
@pytest.mark.parametrize("family", ["llama", "gemma3, one layer of two with a window of 12"])
@pytest.mark.parametrize("name", EVICTING)
def test_what_is_evicted_is_as_if_masked_out(name, family, paddings, monkeypatch):
    kept = Kept(monkeypatch)
    model = model_of(family)
    use_attention(model)
    cache = KVBenchCache(small(name), model.config)
    got = logits(model, cache, STEPS, paddings)
    figures = cache.figures()
    assert figures.num_seen == cache.get_seq_length() == sum(STEPS)
    assert (figures.num_attended < figures.num_seen) == (not small(name).lossless)
    AttentionInterface.register("masked", lambda *args, **kwargs: masked_attention(kept.found, *args, **kwargs))
    AttentionMaskInterface.register("masked", sdpa_mask)
    model.set_attn_implementation("masked")
    expected = logits(model, DynamicCache(), STEPS, paddings)  # without a configuration, so that windows are whole
    assert not kept.found
    assert (got - expected).abs().max() < 1e-4
    assert expected.std() > 0.1


def test_sinks_of_a_padded_row_are_its_own_first_tokens(monkeypatch):
    """Two sinks and a window of 8, by hand: 14 tokens, of which the second row's first five are padding."""
    kept = Kept(monkeypatch)
    model = model_of("llama")
    use_attention(model)
    logits(model, KVBenchCache(small("sinks"), model.config), (14, 1, 1), (0, 5))
    _, last = kept.found[-1]
    assert last[0, 0].nonzero()[:, 0].tolist() == [0, 1, *range(8, 16)]
    assert last[1, 0].nonzero()[:, 0].tolist() == [5, 6, *range(8, 16)]


@pytest.mark.parametrize("name", ["compressed", "heavy_hitters", "snapkv"])
def test_padding_is_not_ranked_high(name, monkeypatch):
    """Of the padded row's first 12 tokens none is kept while it has enough others; of the other row some are."""
    kept = Kept(monkeypatch)
    model = model_of("llama")
    use_attention(model)
    changed = {"kept_fraction": 0.2} if name == "compressed" else {}
    chosen = small(name) if not changed else strategy(name, interval=16, **changed)
    logits(model, KVBenchCache(chosen, model.config), (40, 1), (0, 12))
    for _, last in kept.found[-2:]:  # of the two layers, at the last token
        assert last[0, :, :12].any()
        assert not last[1, :, :12].any()


def test_a_row_too_short_for_its_sinks_is_refused():
    model = model_of("llama")
    use_attention(model)
    cache = KVBenchCache(strategy("sinks", num_sinks=4, window=8), model.config)
    with pytest.raises(ValueError, match="keeps the first 4 tokens of each row, and the first append has a row of 3"):
        model.generate(**padded(12, 0, 9), past_key_values=cache, max_new_tokens=2)


@pytest.mark.parametrize("name", ROUNDING)
def test_rounded_caches_generate_in_padded_batches(name):
    """What rounds differs from the full cache by little: the finer, the less; padding does not widen it."""
    model = model_of("llama")
    full = logits(model, DynamicCache(), STEPS, (0, 11, 23))
    use_attention(model)
    got = logits(model, KVBenchCache(small(name), model.config), STEPS, (0, 11, 23))
    loss = F.kl_div(got.log_softmax(-1), full.log_softmax(-1), log_target=True, reduction="batchmean")
    assert 0 < loss < {"int8": 0.01, "fp8": 0.1, "int4": 1.0}.get(name, 8.0)


@pytest.mark.parametrize(
    ("name", "chosen"), [("llama", "dynamic"), ("llama", "paged"), ("mistral, window of 12", "dynamic")]
)
@torch.no_grad()
def test_a_caches_dtype_is_torchs_own_cast_in_every_layer(name, chosen):
    """The first layer's K are the full cache's, cast; a window holds as many, and what is cropped leaves no trace."""
    model = model_of(name)
    use_attention(model)
    text = prompt(2, 40)
    got = KVBenchCache(small(chosen), model.config, kv_dtype="fp8_e5m2")
    exact = KVBenchCache(small(chosen), model.config)
    for cache in (got, exact):
        model(input_ids=text[:, :30], past_key_values=cache)
        model(input_ids=text[:, 30:], past_key_values=cache)
        cache.batch.end()
    held, full = (cache.batch.sequences[0].full_context(0)[0] for cache in (got, exact))
    assert torch.equal(held, full.to(torch.float8_e5m2).to(full.dtype))
    assert 4 * got.batch.ledger.used_bytes == exact.batch.ledger.used_bytes
    if name == "llama":
        got.crop(-3)
        assert got.get_seq_length() == 37
        assert torch.equal(got.batch.sequences[0].full_context(0)[0], held[:, :, :37])
    with pytest.raises(ValueError, match="held in nvfp4, which is counted"):
        KVBenchCache(small(chosen), model.config, kv_dtype="nvfp4")


@torch.no_grad()
def test_who_needs_the_attention_function_says_so():
    model = model_of("llama")
    for name, reason in (("sinks", "evicts tokens"), ("heavy_hitters", r"is told of attention \(mass\)")):
        with pytest.raises(RuntimeError, match=rf"{reason}.*use_attention\(model\) first .*'sdpa'"):
            model(input_ids=prompt(1, 5), past_key_values=KVBenchCache(small(name), model.config))
    cache = KVBenchCache(small("dynamic"), model.config, positions="compacted")
    with pytest.raises(RuntimeError, match="is read with positions of its own"):
        model(input_ids=prompt(1, 5), past_key_values=cache)


def test_attention_of_another_kind_is_refused():
    model = softcapped()
    use_attention(model)
    cache = KVBenchCache(small("dynamic"), model.config)
    with torch.no_grad(), pytest.raises(ValueError, match="attends with softcap, which kvbench's attention has not"):
        model(input_ids=prompt(1, 5), past_key_values=cache)


def test_gradients_are_refused():
    model = model_of("llama")
    with pytest.raises(ValueError, match=r"is for inference.*under torch.no_grad\(\)"):
        model(input_ids=prompt(1, 5), past_key_values=KVBenchCache(small("dynamic"), model.config))


def test_a_strategy_that_holds_nothing_is_refused():
    model = model_of("llama")
    with pytest.raises(ValueError, match=r"Recompute holds nothing between steps.*use_cache=False"):
        model(input_ids=prompt(1, 5), past_key_values=KVBenchCache(strategy("recompute"), model.config))


def test_other_caches_are_attended_as_before():
    model = model_of("llama")
    plain = generated(model, DynamicCache(), 20, input_ids=prompt(2, 9))
    use_attention(model)
    assert torch.equal(generated(model, DynamicCache(), 20, input_ids=prompt(2, 9)), plain)
    with torch.no_grad():
        assert model(input_ids=prompt(2, 9), use_cache=False).logits.isfinite().all()


def test_keys_turn_as_the_model_turns_them():
    """A key turned by seven positions at once, and one turned by three and then by four."""
    model = model_of("llama")
    rotary = model.model.rotary_emb
    keys = torch.randn(1, 2, 1, 16)

    def placed(position):
        cos, sin = rotary(keys, torch.tensor([[position]]))
        return keys * cos + torch.cat((-keys[..., 8:], keys[..., :8]), dim=-1) * sin

    assert torch.allclose(turned(placed(3), 4, rotary.inv_freq), placed(7), atol=1e-6)


@pytest.mark.parametrize("name", ["sinks", "heavy_hitters", "compressed"])
def test_compacted_positions_are_those_of_a_sequence_without_gaps(name, monkeypatch):
    """In a model of one layer K and V are functions of token and position alone: what is kept can be placed anew.

    The last token's logits are those of attention over the kept tokens' keys, each turned as the model turns it at its
    place among those kept, and the query at the last place.
    """
    kept = Kept(monkeypatch)
    config = CONFIGS["llama"]()
    config.num_hidden_layers = 1
    model = from_config(config)
    use_attention(model)
    got = logits(model, KVBenchCache(small(name), model.config, positions="compacted"), (30, *[1] * 12), (0,))[-1]
    _, last = kept.found[-1]
    ids = prompt(1, 42)
    places = last[0].long().cumsum(dim=1) - 1
    first = model.model.layers[0]
    with torch.no_grad():
        hidden = model.model.embed_tokens(ids)
        normed = first.input_layernorm(hidden)
        heads = lambda tensor: tensor.view(1, 42, -1, 16).transpose(1, 2)  # noqa: E731
        query, key, value = (heads(getattr(first.self_attn, f"{which}_proj")(normed)) for which in "qkv")

        def at(tensor, positions):
            cos, sin = model.model.rotary_emb(tensor, positions)
            return tensor * cos + torch.cat((-tensor[..., 8:], tensor[..., :8]), dim=-1) * sin

        outputs = []
        for head in range(4):
            own = last[0, head // 2].nonzero()[:, 0]
            keys = at(key[:, head // 2, own], places[head // 2, own][None])
            asked = at(query[:, head, -1:], torch.tensor([[len(own) - 1]]))
            outputs.append(F.scaled_dot_product_attention(asked, keys, value[:, head // 2, own]))
        hidden = hidden[:, -1:] + first.self_attn.o_proj(torch.cat(outputs, dim=-1))
        hidden = hidden + first.mlp(first.post_attention_layernorm(hidden))
        expected = model.lm_head(model.model.norm(hidden))[0, -1]
    assert (got - expected).abs().max() < 1e-4
    plain = logits(model, KVBenchCache(small(name), model.config), (30, *[1] * 12), (0,))[-1]
    assert (plain - expected).abs().max() > 1e-2


@torch.no_grad()
def test_compacted_positions_are_refused_where_they_are_not_known():
    model = model_of("gemma3, one layer of two with a window of 12")
    use_attention(model)
    cache = KVBenchCache(small("sinks"), model.config, positions="compacted")
    with pytest.raises(ValueError, match=r"turns keys as llama, .* do; got gemma3_text"):
        model(input_ids=prompt(1, 5), past_key_values=cache)
    with pytest.raises(ValueError, match="stages packed"):
        KVBenchCache(small("int4"), model.config, positions="compacted")
    with pytest.raises(ValueError, match="Did you mean 'compacted'"):
        KVBenchCache(small("sinks"), model.config, positions="compact")
    model = model_of("llama")
    use_attention(model)
    cache = KVBenchCache(small("sinks"), model.config, positions="compacted")
    with pytest.raises(ValueError, match="takes rows without padding"):
        model(**padded(12, 0, 4), past_key_values=cache)
