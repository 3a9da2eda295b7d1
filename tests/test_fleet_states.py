"""A fleet of models with states that are kept: the runner's steps by any engine's rules, by hand, and in pools."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.engine.scheduling import Scheduling
from kvbench.ledger.costs import workspace_bytes
from kvbench.plan.ops import MAIN
from kvbench.strategy.paged import Paged
from tests.test_fleet_engine import ONE, fleet
from tests.test_fleet_prefix import columns_of, texts_of
from tests.test_fleet_windows import GEOMETRIES, VLLM, by_fleet, by_runner, pool_of, told

STATES = ("states", "large states")
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=24)
# As in tests.test_fleet_prefix, of requests that come in fewer steps, and are longer: their prompts are cut more often.
CROWD = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 9), st.integers(0, 40), TOKENS, TOKENS), max_size=14)
FLAGS = dict.fromkeys(Scheduling._fields[2:], st.booleans()) | {"waits_for_end": st.just(True)}
RULES = st.one_of(
    st.integers(4, 24).map(lambda tokens: Scheduling(tokens, **VLLM)),
    st.builds(Scheduling, st.integers(4, 24), st.none(), **FLAGS),  # where none give way to each other for ever
    st.builds(Scheduling, st.none(), st.sampled_from([None, 2])),
)
CHOSEN = st.fixed_dictionaries(
    {
        "name": st.sampled_from(STATES),
        "size": st.sampled_from([1, 2, 4, 8]),
        "spare": st.integers(-2, 40),
        "max_batch": st.integers(1, 8),
        "rules": RULES,
        "is_kept": st.just(True),
        "interval": st.sampled_from([0, 0, 1, 8]),
    }
)


@settings(max_examples=200, deadline=None)
@given(drawn=CROWD, chosen=CHOSEN, says_contents=st.sampled_from([True, True, True, False]))
def test_it_equals_the_runner_by_any_engines_rules(drawn, chosen, says_contents):
    columns = columns_of(texts_of(drawn))
    columns = columns if says_contents else replace(columns, contents=None)
    result = by_fleet(columns, chosen)
    assert (told(result), result.totals.num_evicted_blocks) == by_runner(columns, chosen)


@settings(max_examples=100, deadline=None)
@given(drawn=CROWD, chosen=CHOSEN, late=st.booleans())
def test_jumping_gives_what_stepping_gives(drawn, chosen, late):
    texts = texts_of(drawn) + [(2_000_000, (0, 1, 1), (1,))] * late
    jumped, stepped = (by_fleet(columns_of(texts), chosen, step_by_step=each) for each in (False, True))
    assert told(jumped) == told(stepped)
    assert jumped.totals == stepped.totals
    assert jumped.sums == pytest.approx(stepped.sums, rel=1e-9, abs=1e-3)


def by_hand(texts, tokens, **changed):
    """What becomes of requests, and the most that is held beside staging buffers, in blocks of 4 of layers that look at
    all, and in bytes more."""
    chosen = {"name": "states", "size": 4, "spare": 30, "max_batch": 4, "is_kept": True, **changed}
    chosen["rules"] = Scheduling(tokens, **VLLM)
    columns, geometry = columns_of(texts), GEOMETRIES["states"]
    result = by_fleet(columns, chosen)
    held = result.totals.peak_bytes - workspace_bytes(pool_of(columns, **chosen)[0].areas, geometry, 1)
    return result, divmod(held, 4 * geometry.bytes_per_token)


def hits(texts, tokens, **changed):
    return by_hand(texts, tokens, **changed)[0].hit_tokens.tolist()


def test_what_is_held_and_gone_on_from_by_hand():
    # A state takes 2 layers · 5 · 2 bytes, a block of tokens 4 · 2 · 8 · 2. A prompt of 10 is computed to 8, and then 2
    # more: 3 blocks, the state at 8 and one at its end. It decodes to 12 tokens, and takes no more.
    one = (0, (0,) * 10, (1, 1, 1))
    assert by_hand([one], 20)[1] == (3, 2 * 20)
    # One that has the first 8 tokens goes on from there, and one that has 7 from nowhere; what parts in the third block
    # is found up to the second.
    later = 10**6
    texts = [
        one,
        (later, (0,) * 9, (1,)),
        (2 * later, (0,) * 7 + (1,) * 3, (1,)),
        (3 * later, (0,) * 8 + (1,) * 4, (1,)),
    ]
    assert hits(texts, 20) == [0, 8, 0, 8]
    # Two that have 4 tokens alike, where no step ended: the second stops there, and the third goes on from it.
    alike = [(0, (0,) * 10, (1,)), (later, (0,) * 5 + (1,) * 5, (1,)), (2 * later, (0,) * 4 + (1,) * 6, (1,))]
    assert hits(alike, 20) == [0, 0, 4]
    # With a state every block, the second does so already: steps of 5 tokens end with blocks.
    assert hits(alike, 5, interval=1) == [0, 4, 4]


def test_who_would_go_on_from_a_state_of_the_same_step_waits_for_the_next():
    # All come at once, in steps of 40 tokens: the first one's prompt is computed to 8 in the first step, and both
    # others wait with it; in the second they find its blocks and its state.
    result, _ = by_hand([(0, (0,) * 10, (1,)), *[(0, (0,) * 9, (1,))] * 2], 40)
    assert result.hit_tokens.tolist() == [0, 8, 8]
    first, *others = result.admitted_ns.tolist()
    assert first == 0 < others[0] == others[1] < result.first_token_ns[0]


def test_a_pool_is_in_the_engines_blocks_which_hold_states_too():
    settings = {"engine.max_num_seqs": 10_000}
    server = fleet("qwen3_next_80b_a3b", parallel={"tensor": 4}, settings=settings, engine="vllm")
    columns = columns_of([(0, (0,) * 1_200, (1,)), (10**9, (0,) * 1_100, (1,))])
    made = server.fitted(Paged(), columns, server.memory_bytes)
    main, states = made.areas
    assert (main.name, main.blocks.num_tokens, states.name, states.blocks.of) == (MAIN, 272, "state", MAIN)
    # 12,288 bytes a token in 12 layers of 1,024; the whole pool, with nothing set aside beside it.
    whole = min(server.serving.pool.usable_bytes, server.memory_bytes)
    assert main.blocks.pool_tokens == whole // (12 * 1_024) // 272 * 272
    assert server.fitted(Paged(block_size=64), columns, server.memory_bytes).block_size == 64
    # As many are live as the engine takes, where states beside blocks bound them.
    assert server.most_live(made) == 8_192 > server.max_batch
    beside = server.fitted(Paged(prefix_caching=False), columns, server.memory_bytes)
    assert (server.most_live(beside), len(beside.areas)) == (server.max_batch, 1)
    run = server.serve("paged", Paged(), columns, server.memory_bytes)
    assert run.result.hit_tokens.tolist() == [0, 1_088]
    assert server.fitted(Paged(), ONE, server.memory_bytes).prefix_caching is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"preemption": "swap"},
            "blocks that others may find are computed again after a preemption; got preemption=swap",
        ),
        (
            {"routing": "prefix", "routing_delay_s": 1.0},
            "routing_delay_s=1 is of layers that all hold the same blocks, .* have tables of their own: leave it 0, or",
        ),
    ],
)
def test_what_does_not_go_with_states_is_refused(options, message):
    chosen = {"name": "states", "size": 4, "spare": 4, "max_batch": 2, "is_kept": True, "rules": Scheduling(8, **VLLM)}
    with pytest.raises(ValueError, match=message):
        by_fleet(columns_of(texts_of([])), chosen, **options)
