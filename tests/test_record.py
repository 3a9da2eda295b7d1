"""Recorded K, V and queries are those that the model's attention was given."""

import json
import sys

import pytest
import torch
from safetensors import safe_open

import kvbench as kv
from kvbench.quality.compare import compare
from kvbench.quality.recorded import KEY, write
from kvbench.workload.request import Request, Session
from tests.support.catalogue import strategy

transformers = pytest.importorskip("transformers")

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import DynamicCache, PreTrainedTokenizerFast  # noqa: E402

from kvbench.integrations.recording import CannotRecord, record  # noqa: E402
from kvbench.integrations.text import default_text  # noqa: E402

TOKENS = 24
SIZES = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,  # other than 48 / 6
    "max_position_embeddings": 128,
}


def model_of(kind="Llama", attention="sdpa", **changed):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES | changed, attn_implementation=attention)
    name = f"{kind.removesuffix('Text')}ForCausalLM"
    return getattr(transformers, name)(config).eval()


def tokens_of(num_tokens=TOKENS):
    return torch.randint(0, 96, (num_tokens,), generator=torch.Generator().manual_seed(1))


def attention_inputs(model, tokens):
    """What each layer's output projection is given: attention's output, [1, tokens, heads * head_dim]."""
    found, hooks = [], []
    for layer in model.model.layers:
        hooks.append(layer.self_attn.o_proj.register_forward_pre_hook(lambda _, given: found.append(given[0])))
    with torch.no_grad():
        cache = DynamicCache(config=model.config)
        model(input_ids=tokens.unsqueeze(0), past_key_values=cache)
    for hook in hooks:
        hook.remove()
    return found, cache


def attended(recorded, layer):
    """Causal attention, written out: products over the root of head_dim."""
    keys, values, queries = recorded.keys[layer], recorded.values[layer], recorded.queries[layer]
    group = queries.shape[0] // keys.shape[0]
    scores = queries @ keys.repeat_interleave(group, 0).transpose(1, 2) / queries.shape[2] ** 0.5
    seen = torch.ones(scores.shape[1:], dtype=torch.bool).tril()
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values.repeat_interleave(group, 0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Qwen3", "Mistral"])
def test_attention_over_what_was_recorded_is_the_models(kind, attention):
    model, tokens = model_of(kind, attention), tokens_of()
    recorded = record(model, tokens, range(3))
    outputs, cache = attention_inputs(model, tokens)
    assert recorded.queries.shape == (3, 6, TOKENS, 16)
    for layer in range(3):
        assert torch.allclose(recorded.keys[layer], cache.layers[layer].keys[0], atol=1e-6)
        assert torch.allclose(recorded.values[layer], cache.layers[layer].values[0], atol=1e-6)
        expected = outputs[layer][0].unflatten(1, (6, 16)).transpose(0, 1)
        assert torch.allclose(attended(recorded, layer), expected, atol=1e-5)


def test_queries_are_projected_and_rotated():
    model, tokens = model_of(), tokens_of()
    first = model.model.layers[0]
    with torch.no_grad():
        hidden = first.input_layernorm(model.model.embed_tokens(tokens))
        flat = (hidden @ first.self_attn.q_proj.weight.T).unflatten(1, (6, 16)).transpose(0, 1)
    # A head's elements i and i + 8 are turned by position * 10000^(-i / 8).
    angles = torch.arange(TOKENS).unsqueeze(1) * 10000.0 ** (-torch.arange(8) / 8)
    low, high = flat[..., :8], flat[..., 8:]
    turned = torch.cat([low * angles.cos() - high * angles.sin(), high * angles.cos() + low * angles.sin()], dim=2)
    assert torch.allclose(record(model, tokens, [0]).queries[0], turned, atol=1e-5)


def test_layers_are_those_that_were_asked_for_in_their_order():
    model, tokens = model_of(), tokens_of()
    every, some = record(model, tokens, range(3)), record(model, tokens, [2, 0])
    for name in ("keys", "values", "queries"):
        assert torch.equal(getattr(some, name), getattr(every, name)[[2, 0]])


def test_a_models_own_scale_is_in_the_queries():
    gemma = {"query_pre_attn_scalar": 64, "layer_types": ["full_attention"] * 3}  # a scale of 1/8, and not 1/4
    model, tokens = model_of("Gemma3Text", **gemma), tokens_of()
    recorded = record(model, tokens, [0])
    outputs, _ = attention_inputs(model, tokens)
    expected = outputs[0][0].unflatten(1, (6, 16)).transpose(0, 1)
    assert torch.allclose(attended(recorded, 0), expected, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_model_is_left_as_it_was(attention, monkeypatch):
    model, tokens = model_of(attention=attention), tokens_of()
    record(model, tokens, [0])
    assert model.config._attn_implementation == attention
    monkeypatch.setattr(model.model.layers[1], "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        record(model, tokens, [0])
    assert model.config._attn_implementation == attention


def test_what_holds_not_all_tokens_is_refused_and_the_others_are_recorded():
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    model = model_of("Gemma3Text", sliding_window=8, layer_types=kinds)
    with pytest.raises(CannotRecord, match=r"layer 0 .* holds K and V of 7 of 24 tokens: record fewer"):
        record(model, tokens_of(), range(3))
    assert record(model, tokens_of(), [1]).keys.shape == (1, 2, TOKENS, 16)
    assert record(model, tokens_of(7), range(3)).keys.shape == (3, 2, 7, 16)


def test_attention_of_another_kind_is_refused():
    model = model_of("Gemma2", "eager", attn_logit_softcapping=50.0)
    with pytest.raises(CannotRecord, match="its attention has a softcap"):
        record(model, tokens_of(), [0])
    assert model.config._attn_implementation == "eager"


WORDS = ["[UNK]", *(f"w{index}" for index in range(95))]
QUICK = ["repetitions=1", "warmup=0", "device=cpu", "scenario.appends=[20,60]"]
SHAPED = ["model.num_layers=3", "model.num_heads=6", "model.num_kv_heads=2", "model.head_dim=16"]


@pytest.fixture
def folder(tmp_path):
    """A tiny model with a tokenizer of 96 words, and a text of 60 of them."""
    model_of().save_pretrained(tmp_path / "tiny")
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(tmp_path / "tiny")
    (tmp_path / "page.txt").write_text(" ".join(f"w{7 * index % 95}" for index in range(60)))
    return tmp_path


TINY = ["record", "model=smollm2", "model.name_or_path=tiny", "text=page.txt", "device=cpu"]


def test_the_verb_writes_what_a_run_can_append(kvbench, folder):
    said = kvbench(*TINY, "tokens=50", "out=new/kv.safetensors")
    out = folder / "new" / "kv.safetensors"
    assert [each.name for each in out.parent.iterdir()] == ["kv.safetensors"]
    line = f"new/kv.safetensors: K, V and queries of 50 tokens in 3 of 3 layers, {out.stat().st_size:,} bytes"
    assert line in said
    assert "page.txt" in said
    assert f"use it: python -m kvbench +scenario=short_chat model=smollm2 {SHAPED[0]}" in said
    assert "data=new/kv.safetensors 'strategy=[int8,int4,int2,int2_naive,dynamic]'" in said
    with safe_open(out, framework="pt") as file:
        about = json.loads(file.metadata()[KEY])
    assert about["layers"] == [0, 1, 2]
    assert about["text"].endswith("page.txt")
    tokens = [7 * index % 95 + 1 for index in range(50)]
    expected = record(model_of(), tokens, range(3))
    chosen = next(line for line in said.splitlines() if line.startswith("use it: ")).split()
    used = kvbench(
        *[part for part in chosen if part.startswith(("model", "+scenario", "data"))], "strategy=int8", *QUICK
    )
    assert "appended are K and V recorded in kv.safetensors, model " in used
    with safe_open(out, framework="pt") as file:
        for name in ("keys", "values", "queries"):
            assert torch.equal(file.get_tensor(name), getattr(expected, name)), name


def test_all_of_a_short_text_is_taken_unless_more_was_asked_for(kvbench, folder):
    assert "queries of 60 tokens in 2 of 3 layers" in kvbench(*TINY, "layers=0,2", "dtype=bfloat16")
    with safe_open(folder / "kv.safetensors", framework="pt") as file:
        assert file.get_tensor("keys").shape == (2, 2, 60, 16)
        assert file.get_tensor("queries").dtype == torch.bfloat16


def test_a_call_records_what_the_verb_writes(kvbench, folder, monkeypatch):
    monkeypatch.chdir(folder)
    kvbench(*TINY, "tokens=50", "layers=2,0", "out=told.safetensors")
    tiny = {"name_or_path": folder / "tiny", "text": folder / "page.txt", "device": "cpu", "tokens": 50}
    found = kv.record("smollm2", layers=[2, 0], **tiny)
    assert (len(found.tokens), found.layers, found.geometry.num_layers) == (50, [2, 0], 3)
    with safe_open("told.safetensors", framework="pt") as file:
        for name in ("keys", "values", "queries"):
            assert torch.equal(file.get_tensor(name), getattr(found.tensors, name)), name
    before = sorted(path.name for path in folder.iterdir())
    refused = [
        ({"layers": 3}, "layers is all, or .* got 3"),
        ({"layers": []}, r"got \[\]"),
        ({"tokens": 2.0}, "got 2.0"),
    ]
    for wrong, words in refused:
        with pytest.raises(ValueError, match=words):
            kv.record("smollm2", **tiny | wrong)
    with pytest.raises(ValueError, match="is a geometry without a model to be had"):
        kv.record(found.geometry)
    assert sorted(path.name for path in folder.iterdir()) == before
    kv.record("smollm2", out="called.safetensors", **tiny)
    settings = {**found.settings, "data": "called.safetensors", "repetitions": 1, "warmup": 0, "device": "cpu"}
    results = kv.run(kv.workload.Appends(appends=(20, 60)), "int8", model="smollm2", settings=settings)
    assert "appended are K and V recorded in called.safetensors" in " ".join(results.environment["header"])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (["text=none.txt"], "none.txt"),
        (["textt=page.txt"], "unknown key 'textt'. Did you mean 'text'?"),
        (["page.txt"], "expected key=value, got 'page.txt'; for example: python -m kvbench record model=smollm2"),
        (["model="], "model=… is missing"),
        (["model=smolm2"], "Did you mean 'smollm2'?"),
        (["model=llama3_8b", "model.name_or_path="], "model=llama3_8b is a geometry without a model to be had"),
        (["model.name_or_path=nowhere"], "nowhere"),
        (["dtype=float8"], "unknown dtype 'float8'"),
        (["device=tpu"], "tpu"),
        (["tokens=1"], "tokens is an integer of at least 2, got 1"),
        (["tokens=many"], "tokens is an integer of at least 2, got 'many'"),
        (["tokens=61"], "the text page.txt has 60, and 61 are needed"),
        (["tokens=129"], "has 128 positions, got 129"),
        (["layers=0,3"], "layers: the model has layers 0 to 2, got 3"),
        (["layers=0,0"], "layers is all, or numbers from 0, each once, such as 0,7,29; got [0, 0]"),
        (["layers=first"], "got ['first']"),
        (["out=kv.pt"], "out is a file whose name ends in .safetensors, got 'kv.pt'"),
        (["out=there.safetensors"], "out=there.safetensors: it exists already; name a new file"),
        (["out=page.txt/kv.safetensors"], "out=page.txt/kv.safetensors: it cannot be written"),
    ],
)
def test_the_verb_refuses_and_writes_nothing(kvbench, folder, changed, words):
    (folder / "there.safetensors").write_bytes(b"mine")
    before = sorted(path.name for path in folder.iterdir())
    said = kvbench(*TINY, *changed, status=2)
    assert words in said
    assert "Traceback" not in said
    assert sorted(path.name for path in folder.iterdir()) == before
    assert (folder / "there.safetensors").read_bytes() == b"mine"


def test_without_transformers_the_verb_says_what_to_install(kvbench, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    said = kvbench(*TINY, status=2)
    assert "needs transformers, which could not be imported" in said
    assert "install it: python -m pip install 'transformers>=5.14' gguf accelerate" in said


@pytest.mark.slow
def test_a_real_models_tensors_are_judged_as_they_are(smollm2, tmp_path):
    """256 tokens: int8 rounds by less than 1 %, 4 bits by less than 2 do, and keys by channel beat keys by token."""
    tokens = smollm2.tokenizer(default_text().text[:4096])["input_ids"][:256]
    recorded = record(smollm2.model, tokens, [0, 14, 29])
    assert recorded.keys.shape == (3, 3, 256, 64)
    assert recorded.queries.shape == (3, 9, 256, 64)
    write(tmp_path / "kv.safetensors", recorded.keys, recorded.values, recorded.queries)
    lossy = ("int8", "int4", "int2", "int2_naive")
    found = compare(
        {name: strategy(name, residual_tokens=32) for name in lossy},
        [Session(0, (Request(128, 0), Request(128, 0)))],
        geometry=smollm2.geometry,
        device="cpu",
        seed=0,
        max_tokens=256,
        data=tmp_path / "kv.safetensors",
    ).found
    errors = [found[name].error_relative for name in lossy]
    assert errors == sorted(errors)
    assert errors[0] < 0.01 < errors[2] < 0.8 * errors[3]
