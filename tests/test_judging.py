"""Perplexity, KL and agreement by hand; the reference; needles; and that a cache's own steps are what is judged."""

import math
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("transformers")

from kvbench.integrations.figures import Figures
from kvbench.integrations.models import weights_fingerprint
from kvbench.integrations.transformers import use_attention
from kvbench.quality.model.needles import FILLER_TOKENS, dialogues, found
from kvbench.quality.model.perplexity import Reference, predict, reference_of
from kvbench.quality.model.steps import CacheCounts, cache_of
from kvbench.quality.model.tokens import Tokens, encoder, tokens_of
from kvbench.strategy.base import CapacityExceeded
from kvbench.studies.quality.cells import STREAMING, Cell, Contender
from kvbench.studies.quality.subject import Subject
from tests.support.catalogue import strategy
from tests.support.tiny_models import VOCABULARY, Letters, tiny_llama

TEXT = "What is said once is found again, wherever it stands and whoever asks for it. " * 12
LETTERS = encoder(Letters())
FIGURES = Figures(held_bytes=1, peak_bytes=2, num_resizes=3, num_seen=4, num_attended=5)


class Fixed:
    """Predicts after each token what a table says; notes what it is given."""

    device, config = torch.device("cpu"), None

    def __init__(self, table):
        self.table, self.given = table, []

    def __call__(self, input_ids, past_key_values, use_cache, logits_to_keep):
        self.given.append(input_ids[0].tolist())
        return SimpleNamespace(logits=torch.tensor([[self.table[self.given[-1][-1]]]]).log())


def predicted(model, reference, prefill_tokens=0):
    told = []
    counted = CacheCounts(None, lambda: FIGURES, lambda: None)
    return predict(model, counted, reference, prefill_tokens=prefill_tokens, on_tokens=told.append), told


def test_perplexity_and_kl_by_hand():
    # The full cache halves its belief each time; the cache says 1/4, 3/4 after a 0, and 1/2, 1/2 after a 1.
    # Tokens 0 1 1 0: predicted are 1 (3/4), 1 (1/2) and 0 (1/2); the perplexity is (4/3 · 2 · 2)^(1/3).
    # KL after the 0: 1/2 ln(1/2 ÷ 1/4) + 1/2 ln(1/2 ÷ 3/4) = 1/2 ln(4/3); after a 1 it is 0.
    full = Reference((0, 1, 1, 0), torch.full((3, 2), 0.5).log())
    found, told = predicted(Fixed([[0.25, 0.75], [0.5, 0.5]]), full)
    assert found.perplexity == pytest.approx((16 / 3) ** (1 / 3))
    assert found.kl_nats == pytest.approx(math.log(4 / 3) / 2 / 3)
    assert found.agreement == pytest.approx(2 / 3)  # of equals the first counts: 0 for the full cache, 1 after the 0
    assert (found.num_predicted, found.figures, told) == (3, FIGURES, [1, 1, 1])
    assert full.perplexity() == pytest.approx(2)


def test_a_prefill_comes_at_once_and_its_predictions_do_not_count():
    full = Reference((0, 1, 1, 0), torch.full((3, 2), 0.5).log())
    model = Fixed([[0.25, 0.75], [0.5, 0.5]])
    found, told = predicted(model, full, prefill_tokens=2)
    assert model.given == [[0, 1], [1]]  # the last token is only predicted
    assert (found.num_predicted, found.perplexity, found.kl_nats, told) == (1, pytest.approx(2), 0, [2, 1])


def test_a_prefills_predictions_may_be_the_full_caches():
    # Tokens 0 1 1 0: after 0 and 1 the full cache predicts (1/2 each), then the cache after a 1 (1/4 for the 0).
    full = Reference((0, 1, 1, 0), torch.full((3, 2), 0.5).log())
    counted = CacheCounts(None, lambda: FIGURES, lambda: None)
    model = Fixed([[0.9, 0.1], [0.25, 0.75]])
    found = predict(model, counted, full, prefill_tokens=2, on_tokens=lambda count: None, counts_prefill=True)
    assert (found.num_predicted, found.perplexity) == (3, pytest.approx(16 ** (1 / 3)))
    assert found.kl_nats == pytest.approx(math.log(4 / 3) / 2 / 3)
    assert found.agreement == pytest.approx(2 / 3)


@pytest.mark.parametrize(("holder", "form", "at_once"), [("fp8", STREAMING, 64), ("dynamic", STREAMING, 0)])
def test_fp8_is_fed_a_prefill_first_and_others_are_not(monkeypatch, holder, form, at_once):
    given = {}

    def noted(model, counted, reference, *, prefill_tokens, on_tokens, counts_prefill):
        given.update(prefill_tokens=prefill_tokens, counts_prefill=counts_prefill)
        raise CapacityExceeded(1, 1)

    monkeypatch.setattr("kvbench.quality.model.perplexity.predict", noted)
    model = tiny_llama()
    text = tokens_of(Letters(), TEXT, 401)
    subject = Subject(
        model=model,
        text=text,
        encode=LETTERS,
        num_tokens=400,
        prefill_tokens=200,
        depths=(0.5,),
        num_asked=1,
        seed=0,
        budget_bytes=None,
        on_tokens=lambda title, count: None,
    )
    monkeypatch.setattr(Subject, "_cache", lambda *args: CacheCounts(None, lambda: FIGURES, lambda: None))
    subject.measure(Cell(Contender("it", holder), form, 400, 400))
    assert given == {"prefill_tokens": at_once, "counts_prefill": at_once > 0}


@pytest.fixture(scope="module")
def llama():
    model = tiny_llama()
    use_attention(model)
    return model


@pytest.fixture(scope="module")
def reference(llama):
    return reference_of(llama, LETTERS(TEXT)[:400])


def judged(model, reference, holder, prefill_tokens=0):
    counted = cache_of(model, holder, len(reference.ids) - 1, None, prefill_tokens or 1)
    found = predict(model, counted, reference, prefill_tokens=prefill_tokens, on_tokens=lambda count: None)
    counted.close()
    return found


@pytest.mark.parametrize("prefill_tokens", [0, 200])
@pytest.mark.parametrize("name", ["dynamic", "paged", "transformers"])
def test_the_references_passes_compute_what_single_steps_do(llama, reference, name, prefill_tokens):
    """Beyond the chunk of 256 too; as a strategy, and as transformers' own cache."""
    found = judged(llama, reference, "dynamic" if name == "transformers" else strategy(name), prefill_tokens)
    assert found.perplexity == pytest.approx(reference.perplexity(prefill_tokens), rel=1e-4)
    assert abs(found.kl_nats) < 1e-6
    assert found.agreement == 1
    assert (found.figures.num_seen, found.figures.num_attended) == (399, 399)


def test_what_is_evicted_shows(llama, reference):
    """Nothing bypasses the cache: fewer tokens, a larger distance; of a whole prompt none is lost until it is over."""
    far, near = (judged(llama, reference, strategy("sinks").within(budget, 399)) for budget in (40, 300))
    assert far.kl_nats > near.kl_nats > 1e-4
    assert far.figures.num_attended == 40
    assert far.agreement < 1
    assert far.perplexity != pytest.approx(reference.perplexity(), rel=1e-3)
    assert judged(llama, reference, strategy("int2")).kl_nats > judged(llama, reference, strategy("int8")).kl_nats > 0


def test_tokens_of_a_text():
    assert tokens_of(Letters(), "ab", 1) == Tokens((), (97, 98))
    assert tokens_of(Letters(bos_token_id=5), "ab", 1) == Tokens((5,), (97, 98))
    assert len(tokens_of(Letters(), TEXT, 4).ids) == 64


# Needles.

DEPTHS = (0.1, 0.5, 0.9)


def planted(prefix=(), **changed):
    given = {"context_tokens": 300, "depths": DEPTHS, "num_asked": 2, "seed": 0}
    return dialogues(Tokens(prefix, LETTERS(TEXT)), LETTERS, **(given | changed))


def text_of(ids):
    return "".join(map(chr, ids))


def test_two_facts_of_two_kinds_are_planted_and_asked_for_in_turn():
    made = planted()
    assert [dialogue.first.depth for dialogue in made] == [*DEPTHS] * 2
    assert sorted(dialogue.later.depth for dialogue in made) == sorted([*DEPTHS] * 2)
    assert all(dialogue.first.depth != dialogue.later.depth for dialogue in made)
    for dialogue in made:
        first, later = dialogue.first, dialogue.later
        context, questions = text_of(first.prompt), [text_of(turn.prompt)[-40:] for turn in (first, later)]
        for turn, own in zip((first, later), questions, strict=True):
            question = own[max(own.rfind(" The secret"), own.rfind(" Our old")) :]
            fact = question + text_of(turn.answer)
            assert context.count(fact) == 1
            assert context.index(fact) == pytest.approx(turn.depth * 300, abs=60)
            assert len(text_of(turn.answer)) == 6  # " 4817."
        assert sum("secret number" in question for question in questions) == 1
        assert len(first.prompt) == 300 + len(
            questions[0][max(questions[0].rfind(" The"), questions[0].rfind(" Our")) :]
        )
        assert len(later.prompt) > FILLER_TOKENS
        assert dialogue.num_tokens == len(first.prompt) + len(later.prompt) + 12


def test_a_prefix_comes_first_and_counts():
    assert all(dialogue.first.prompt[0] == 1 for dialogue in planted(prefix=(1,)))
    assert [len(d.first.prompt) for d in planted(prefix=(1,))] == [len(d.first.prompt) for d in planted()]


def test_the_same_seed_plants_the_same():
    assert planted() == planted() != planted(seed=1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"context_tokens": 60}, "longer than its facts"),
        ({"context_tokens": 2000}, r"needles in 2,000 tokens need a text of 1,9\d\d, got 936"),
    ],
)
def test_needles_need_room(changed, message):
    with pytest.raises(ValueError, match=message):
        planted(**changed)


class Reciter(Fixed):
    """Goes on as the text before did where its last eight letters stood, unless these end in what it stumbles over."""

    def __init__(self, stumbles_over=None):
        self.text, self.stumbles_over = "", stumbles_over

    def __call__(self, input_ids, past_key_values, use_cache, logits_to_keep):
        self.text += text_of(input_ids[0].tolist())
        at = self.text.rfind(self.text[-8:], 0, len(self.text) - 1)
        logits = torch.zeros(1, 1, VOCABULARY)
        if at >= 0 and not (self.stumbles_over and self.text.endswith(self.stumbles_over)):
            logits[0, 0, ord(self.text[at + 8])] = 1
        return SimpleNamespace(logits=logits)


def test_a_number_is_found_where_greedy_decoding_gives_all_its_tokens():
    (dialogue,) = planted(depths=(0.5,), num_asked=1)
    counted = CacheCounts(None, lambda: FIGURES, lambda: None)
    first, later = (text_of(turn.answer) for turn in (dialogue.first, dialogue.later))
    assert found(Reciter(), counted, dialogue) == (True, True)
    # One token of four that comes out wrong is enough; the full stop is not asked for.
    assert found(Reciter(stumbles_over=first[:3]), counted, dialogue) == (False, True)
    assert found(Reciter(stumbles_over=later[:3]), counted, dialogue) == (True, False)
    assert found(Reciter(stumbles_over=later[:5]), counted, dialogue) == (True, True)


def test_weights_are_told_apart():
    first, same, other = tiny_llama(), tiny_llama(), tiny_llama(seed=1)
    assert weights_fingerprint(first) == weights_fingerprint(same) != weights_fingerprint(other)
    with torch.no_grad():
        same.model.layers[1].self_attn.k_proj.weight += 1e-3
    assert weights_fingerprint(first) != weights_fingerprint(same)
