"""Adaptive: what class a conversation is of, when it is switched, and what moves: by hand."""

import numpy as np
import pytest
import torch

from kvbench.ledger import LedgerView
from kvbench.plan.ops import Append, Move, Reserve, Rule
from kvbench.strategy.adaptive import Adaptive, Switch
from kvbench.strategy.async_growth import Ahead
from kvbench.strategy.classifying import CHAT, CODE, CREATIVE, DOCUMENT, Rules, class_of, settled_class
from kvbench.strategy.compressed import Compressed
from kvbench.strategy.concat import Concat
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.heavy_hitters import HeavyHitters
from kvbench.strategy.hierarchical import Hierarchical
from kvbench.strategy.member import MemberView
from kvbench.strategy.paged import Paged
from kvbench.strategy.predictive import Predictive
from kvbench.strategy.recompute import Recompute
from kvbench.strategy.sinks import Sinks
from kvbench.workload.request import Request, Session
from tests.support.catalogue import TINY, scenario
from tests.support.driven import Cache, tokens
from tests.support.numbered import PLAIN, TOKEN, contents, write

TEXTS = {CODE: "def class", CREATIVE: "story plot", DOCUMENT: "x" * 300, CHAT: "hi"}
RULES = Rules(
    window_messages=10, document_characters=2000, document_tokens=500, writing_share=0.8, patience=2, min_tokens=256
)


def growing(**changed):
    return Dynamic(**({"initial_capacity": 8, "growth_factor": 2.0, "max_capacity": 600, "round_to": 1} | changed))


def tiers(**changed):
    figures = {"fast_capacity": 40, "slow_capacity": 512, "disk_capacity": 0, "eviction": "age"}
    more = {"top_accessed": 8, "access_window": 4, "read_ahead": True, "background": False}
    return Hierarchical(**(figures | more | changed))


def adaptive(**changed):
    """The last message alone decides, at once, unless a test says otherwise; no strategy keeps positions."""
    chat = {"initial_capacity": 16, "growth_factor": 1.5, "max_capacity": 600, "round_to": 1}
    own = {
        "code": growing(),
        "creative_writing": Concat(),
        "long_document": tiers(),
        "short_chat": Predictive(history_window=5, rule="total", **chat),
        "window_messages": 1,
        "document_characters": 200,
        "document_tokens": 100,
        "writing_share": 0.8,
        "patience": 1,
        "min_tokens": 0,
    }
    return Adaptive(**(own | changed))


def turns_of(*kinds, size=10, answer=0):
    return tuple(Request(size, answer, 0, TEXTS[kind]) for kind in kinds)


def begun(chosen, turns, geometry=PLAIN):
    cache = Cache(chosen, geometry=geometry)
    cache.admit(Session(0, turns))
    return cache


def played(chosen, turns):
    """All turns, token for token; after each append all that was seen is held, in order, once."""
    cache = begun(chosen, turns)
    done = 0
    for count in Session(0, turns).appends():
        write(cache, done, count)
        done += count
        if chosen.lossless:
            assert contents(cache) == list(range(done))
    return cache


def where(cache):
    """Slots in use, by area, of those that hold any."""
    used = {area.name: cache.view.num_used(0, area.name) for area in cache.strategy.areas}
    return {name: count for name, count in used.items() if count}


@pytest.mark.parametrize(
    ("number", "each_turn", "used"),
    [
        (0, [CODE] * 4, [CODE] * 4),
        (1, [CREATIVE] * 3, [CREATIVE] * 3),
        (2, [DOCUMENT] * 4, [DOCUMENT] * 4),
        # Code wins the third and the fourth turn; that begins after 42 + 54 + 34 + 41 + 72 + 65 = 308 tokens.
        (3, [CHAT, CHAT, CODE, CODE], [CHAT, CHAT, CHAT, CODE]),
    ],
)
def test_the_four_conversations_of_assistant_dialogue(number, each_turn, used):
    turns = scenario("assistant_dialogue").workload(np.random.default_rng(0)).sessions[number].turns
    assert [class_of(turns[: k + 1], RULES) for k in range(len(turns))] == each_turn
    assert [settled_class(turns[: k + 1], RULES) for k in range(len(turns))] == used


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Wait for me: the defence of all classes is important, for the dysfunctional.", CHAT),
        ("It is raining, for a while.", CHAT),  # for is no code word, and while alone is not enough
        ("Where does the function import it?", CODE),
        ("DEF main(): import os", CODE),
        ("Tell me a story.", CHAT),
        ("A story with a plot, and a class.", CREATIVE),
        ("Create a class with a function and a character.", CODE),
        ("the rain " * 223, DOCUMENT),  # 2007 characters
        ("the rain " * 222, CHAT),  # 1998
    ],
)
def test_words_are_matched_whole_and_two_are_needed(text, kind):
    assert class_of([Request(5, text=text)], RULES) == kind


def test_the_last_messages_count():
    turns = [Request(5, text="def class"), *[Request(5, text="hi")] * 9]
    assert class_of(turns, RULES) == CODE
    assert class_of([*turns, Request(5, text="hi")], RULES) == CHAT


def test_without_text_tokens_decide_and_no_answer_is_known_before_it_ends():
    assert class_of([Request(500)], RULES) == CHAT
    assert class_of([Request(501)], RULES) == DOCUMENT
    assert class_of([Request(300, 10), Request(300)], RULES) == DOCUMENT
    long_answer = Request(10, 90)
    assert class_of([long_answer], RULES) == CHAT
    assert class_of([long_answer, Request(10)], RULES) == CREATIVE
    assert class_of([Request(20, 80), Request(10)], RULES) == CHAT  # 0.8 is not above 0.8
    assert class_of([Request(501, text="hi"), Request(5)], RULES) == DOCUMENT  # one message without a text


def test_a_class_that_comes_and_goes_is_not_switched_to():
    alternating = turns_of(CHAT, CODE, CHAT, CODE, CHAT, CODE)
    assert played(adaptive(patience=2), alternating).strategy.switches == []
    assert len(played(adaptive(patience=1), alternating).strategy.switches) == 5
    # Ten tokens a turn: the first switch at 30, the next at 60 or later, where it is chat's turn.
    switches = played(adaptive(min_tokens=25), (*alternating, *alternating)).strategy.switches
    assert [(s.num_seen, s.target) for s in switches] == [(30, CODE), (60, CHAT), (90, CODE)]


def test_the_plan_of_a_switch():
    cache = begun(adaptive(), (Request(10, text="hi"), Request(6, text="def class")))
    assert cache.view.capacity(0, "short_chat.main") == 16
    write(cache, 0, 10)
    plan = cache.strategy.on_append(0, 6, cache.view)
    # Code begins with 8 slots; the 10 tokens arrive as an append: 8 · 2 = 16 slots; the 6 new ones fit.
    assert plan == (
        Reserve(0, 8, "code.main"),
        Reserve(0, 16, "code.main"),
        Move(0, "short_chat.main", "code.main", Rule()),
        Reserve(0, 0, "short_chat.main"),
        Append(0, 6, "code.main"),
    )
    assert cache.strategy.on_append(0, 6, cache.view) == plan  # asked again, it plans the same
    receipt = cache.ledger.book(plan)
    assert (receipt.moved_bytes, receipt.copied_bytes) == (10 * TOKEN, 0)
    # Chat's 16 slots, code's 16, and K of its 8 while they are replaced.
    assert receipt.peak_bytes - cache.ledger.reading_bytes == (16 + 16 + 4) * TOKEN
    assert cache.ledger.allocated_bytes - cache.ledger.reading_bytes == 16 * TOKEN
    assert cache.strategy.switches == []  # not yet carried out


def test_tiers_fill_as_by_appends_and_empty_again():
    cache = played(adaptive(), (*turns_of(CODE, size=100), *turns_of(DOCUMENT, CODE, size=4)))
    # 100 tokens come in steps of at most 40: 40; then 40 leave for 40; then 20 for 20. 4 more: half of the tier leaves.
    before = begun(adaptive(), (*turns_of(CODE, size=100), *turns_of(DOCUMENT, size=4)))
    write(before, 0, 100)
    write(before, 100, 4)
    assert where(before) == {"long_document.host": 80, "long_document.main": 24}
    assert before.ledger.tier_bytes["host"] == 512 * TOKEN
    assert where(cache) == {"code.main": 108}
    assert cache.ledger.tier_bytes["host"] == 0
    assert cache.strategy.switches == [
        Switch(0, 100, CODE, DOCUMENT, lossless=True),
        Switch(0, 104, DOCUMENT, CODE, lossless=True),
    ]
    cache.finish()


def test_what_arrives_counts_once_against_a_maximum():
    cache = begun(adaptive(), (*turns_of(CODE, size=540), *turns_of(DOCUMENT, size=12)))
    write(cache, 0, 540)
    write(cache, 540, 12)
    assert sum(where(cache).values()) == 552 == cache.strategy.max_tokens  # 40 and 512
    assert where(cache).keys() == {"long_document.host", "long_document.main"}
    assert contents(cache) == list(range(552))


def test_what_was_lost_before_does_not_count_against_a_maximum():
    writing = Compressed(kept_fraction=0.5, interval=64)
    cache = begun(adaptive(creative_writing=writing), (*turns_of(CREATIVE, size=600), *turns_of(DOCUMENT, size=12)))
    write(cache, 0, 600)
    write(cache, 600, 12)
    assert where(cache).keys() == {"long_document.host", "long_document.main"}
    assert contents(cache) == list(range(300, 612))


def test_a_return_to_a_class_duplicates_nothing():
    cache = played(adaptive(), turns_of(CHAT, CODE, CHAT, CREATIVE, DOCUMENT, CHAT, CODE, answer=3))
    assert where(cache) == {"code.main": 7 * 13 - 1}
    assert cache.view.num_altered(0) == 0
    assert [s.lossless for s in cache.strategy.switches] == [True] * 6
    cache.finish()


def test_what_a_lossy_strategy_lost_is_not_passed_off_as_the_whole():
    writing = Compressed(kept_fraction=0.8, interval=64)
    cache = played(adaptive(creative_writing=writing), turns_of(CREATIVE, CODE, CHAT))
    # Of 10 tokens the 8 with the longest K and V stay: longer by number. Those move, twice, under their positions.
    assert contents(cache) == list(range(2, 30))
    assert cache.view.num_altered(0) == 2
    assert cache.strategy.switches == [
        Switch(0, 10, CREATIVE, CODE, lossless=False),
        Switch(0, 20, CODE, CHAT, lossless=False),
    ]
    assert not cache.strategy.lossless
    cache.finish()


def test_a_move_to_a_lossy_strategy_reduces_what_arrives():
    writing = Compressed(kept_fraction=0.8, interval=64)
    cache = played(adaptive(creative_writing=writing), turns_of(CODE, CREATIVE))
    assert contents(cache) == [*range(2, 10), *range(12, 20)]
    assert cache.strategy.switches == [Switch(0, 10, CODE, CREATIVE, lossless=False)]


def test_slots_keep_positions_where_one_strategy_does_and_a_ring_then_cannot_be():
    lossy = adaptive(creative_writing=Compressed(kept_fraction=0.8, interval=64))
    assert all(area.positions for area in lossy.areas)
    assert not any(area.positions for area in adaptive().areas)
    assert [area.name for area in lossy.areas] == [
        "code.main",
        "creative_writing.main",
        "long_document.host",
        "long_document.main",
        "short_chat.main",
    ]


def test_random_conversations_move_bit_for_bit():
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    made = set()
    for _ in range(12):
        kinds = rng.choice(list(TEXTS), 8)
        turns = tuple(Request(int(rng.integers(1, 70)), int(rng.integers(0, 4)), 0, TEXTS[kind]) for kind in kinds)
        cache = begun(adaptive(), turns, TINY)
        written = [[], []]
        for count in Session(0, turns).appends():
            new = tokens(generator, 1, count), tokens(generator, 1, count)
            cache.append(*new)
            for all_of, added in zip(written, new, strict=True):
                all_of.append(added[1])
        keys, values, positions = cache.sequence().full_context(1)
        assert torch.equal(keys, torch.cat(written[0], dim=2))
        assert torch.equal(values, torch.cat(written[1], dim=2))
        assert positions[0, 0].tolist() == list(range(keys.shape[2]))
        made |= {(switch.source, switch.target) for switch in cache.strategy.switches}
        cache.finish()
    assert len(made) == 12  # each class to each other


def test_a_turn_that_has_not_begun_changes_nothing():
    cache = begun(adaptive(), (Request(10, 5, 0, "hi"), Request(10, 0, 0, "def class")))
    write(cache, 0, 10)
    for number in range(10, 14):
        write(cache, number, 1)
        assert where(cache) == {"short_chat.main": number + 1}
    write(cache, 14, 11)
    assert where(cache) == {"code.main": 25}


def test_an_append_in_several_steps_switches_in_the_first():
    cache = begun(adaptive(), (Request(10, text="hi"), Request(90, text=TEXTS[DOCUMENT])))
    write(cache, 0, 10)
    assert cache.strategy.at_once(0, 90, cache.view) == 40
    write(cache, 10, 90)
    assert len(cache.strategy.switches) == 1
    assert contents(cache) == list(range(100))


def test_after_a_preemption_the_class_is_the_same_and_nothing_is_a_switch():
    cache = played(adaptive(), turns_of(CHAT, CODE, CHAT, CODE, answer=2))
    request = Session(0, turns_of(CHAT, CODE, CHAT, CODE, answer=2))
    cache.finish()
    cache = begun(cache.strategy, request.turns)
    write(cache, 0, 45)  # all that was held, at once, within the fourth turn
    assert where(cache) == {"code.main": 45}
    assert cache.ledger.allocated_bytes - cache.ledger.reading_bytes == 45 * TOKEN
    assert cache.strategy.switches == []


def test_a_move_that_does_not_fit_is_put_off_to_the_next_turn():
    cache = begun(adaptive(), turns_of(CHAT, CODE, CODE, size=5, answer=1))
    write(cache, 0, 5)
    cache.ledger.budget_bytes = cache.ledger.allocated_bytes + 7 * TOKEN  # code begins with 8 slots
    write(cache, 5, 6)
    cache.ledger.budget_bytes = None
    assert where(cache) == {"short_chat.main": 11}
    assert cache.strategy.switches == []
    write(cache, 11, 6)
    assert where(cache) == {"code.main": 17}
    assert [switch.num_seen for switch in cache.strategy.switches] == [11]


def test_a_strategy_that_cannot_hold_it_all_is_not_switched_to():
    cache = played(adaptive(code=growing(max_capacity=30)), turns_of(CHAT, CHAT, CODE, CODE, size=12))
    # 24 and 12 more are over 30; so are 36 and 12.
    assert where(cache) == {"short_chat.main": 48}
    assert cache.strategy.max_tokens == 30


def test_a_new_repetition_forgets_the_switches():
    chosen = played(adaptive(), turns_of(CHAT, CODE)).strategy
    assert len(chosen.switches) == 1
    chosen.on_begin()
    assert chosen.switches == []


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (Recompute(), "recompute cannot take turns with other strategies: it holds nothing between steps"),
        (HeavyHitters(num_heavy=8, num_recent=8), "heavy_hitters .* it ranks tokens by mass"),
        (tiers(eviction="access"), "hierarchical .* it ranks tokens by accesses"),
        (tiers(background=True), "hierarchical .* beside the steps may not be done"),
        (Paged(block_size=4, pool_tokens=64), "paged .* blocks of a pool leave whole"),
        (Sinks(num_sinks=2, window=8), "sinks .* keeps no positions beside those that are left"),
        (
            Ahead(initial_capacity=8, growth_factor=1.5, max_capacity=600, round_to=1, start_at=0.9),
            "async_growth .* beside the steps may not be done",
        ),
        ({"chunk_tokens": 16}, "code is a strategy, got"),
    ],
)
def test_a_strategy_whose_tokens_could_not_move_is_refused(member, words):
    with pytest.raises(ValueError, match=f"code.* {words.removeprefix('code ')}"):
        adaptive(code=member)


@pytest.mark.parametrize("name", ["window_messages", "document_characters", "document_tokens", "patience"])
def test_its_own_parameters_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} is a positive integer"):
        adaptive(**{name: 0})
    with pytest.raises(ValueError, match="writing_share is a number above 0"):
        adaptive(writing_share=0)
    with pytest.raises(ValueError, match="min_tokens is an integer of at least 0"):
        adaptive(min_tokens=-1)


def test_a_member_sees_all_that_a_view_shows_under_its_own_names():
    assert {name for name in vars(LedgerView) if not name.startswith("_")} <= set(vars(MemberView))
