"""The fleet by hand: times, shares, preemption, swaps and chunks of two requests."""

import pytest

from kvbench.engine.scheduling import Scheduling
from kvbench.fleet import simulate
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.exact import Exact
from kvbench.strategy.paged import Paged
from kvbench.strategy.static import Static
from tests.support.fleet_models import ROUND, SLOT_BYTES, columns_of, results
from tests.support.machines import GEOMETRY

STAGING = 1024 // 2  # in slots
NS = 1_000


def run(strategy, rows, slots, **options):
    chosen = {"geometry": GEOMETRY, "budget_bytes": slots * SLOT_BYTES, "max_batch": 4}
    return simulate(columns_of(rows), strategy, ROUND, **chosen | options)


def test_two_requests_by_hand():
    # Every iteration: 100 of launches, 50 of weights (five tokens or fewer compute for less), a token written 1, a
    # slot or a pair 1. An admission allocates: 40.
    # 0: A is admitted, and its prompt of 4 is 4 · 5 / 2 = 10 pairs: 40 to 40 + 100 + 50 + 4 + 10 = 204.
    # 204: B, come at 200, is admitted: 244. A's token reads 5 slots, B's prompt is 3 pairs: 150 + 1 + 5 + 2 + 3: 405.
    # Both have their last token at 405, whose K and V nobody reads: they are never written.
    result = run(Exact(round_to=1), [(0, 4, 2), (200, 2, 1)], 100)
    assert results(result) == {
        "admitted_ns": [40, 244],
        "first_token_ns": [204, 405],
        "finish_ns": [405, 405],
        "num_preemptions": [0, 0],
        "outcome": [0, 0],
        "finish_order": [0, 1],
        "held_tokens": [5, 2],
    }
    totals = result.totals
    assert (totals.makespan_ns, totals.busy_ns, totals.num_iterations) == (405, 405, 2)
    assert (totals.num_prompt_tokens, totals.num_decoded_tokens) == (6, 1)
    assert totals.peak_bytes == 7 * SLOT_BYTES
    # Of 100 slots: A has 4 of 5 for 204, then, both to their end, A 5 of 5 and B 2 of 2 for 201.
    shares = result.shares()
    assert shares.used == pytest.approx((4 * 204 + 7 * 201) / 405 / 100)
    assert shares.reserved == pytest.approx(204 / 405 / 100)
    assert (shares.internal_waste, shares.rounded) == (pytest.approx(0), 0)
    assert shares.free == pytest.approx(1 - (5 * 204 + 7 * 201) / 405 / 100)
    assert shares.mean_batch == pytest.approx((1 * 204 + 2 * 201) / 405)


@pytest.mark.parametrize(
    ("num_output", "first_ns", "finish_ns", "held"),
    # The prompt of 4: 100 + 50 + 4 written + 10 pairs; then 5, 6 … slots are read, and one is written.
    [(0, -1, 164, 4), (1, 164, 164, 4), (2, 164, 164 + 156, 5), (4, 164, 164 + 156 + 157 + 158, 7)],
)
def test_an_answer_takes_a_step_less_than_it_has_tokens(num_output, first_ns, finish_ns, held):
    result = run(Paged(block_size=4, pool_tokens=8), [(0, 4, num_output)], 8 + STAGING)
    found = results(result)
    assert (found["first_token_ns"], found["finish_ns"], found["held_tokens"]) == ([first_ns], [finish_ns], [held])
    assert result.totals.num_decoded_tokens == max(num_output - 1, 0)


def test_a_request_gives_way_and_is_computed_again():
    # Three blocks of 4. 0: both prompts, 8 tokens of 10 each, 20 pairs, 8 written: 100 + 80 + 28 = 208.
    # 208: A takes the last block; B finds none and gives way. A reads 5, 6 and 7 slots: 150 + 1 + 5: 364, 521, 679.
    # 679: A has ended; B's 4 are computed again, 150 + 4 + 10: 843; then as A did: 999, 1,156, 1,314.
    strategy = Paged(block_size=4, pool_tokens=12)
    result = run(strategy, [(0, 4, 4), (0, 4, 4)], 12 + STAGING)
    ours = results(result)
    assert ours["first_token_ns"] == [208, 208]
    assert ours["finish_ns"] == [679, 1_314]
    assert ours["num_preemptions"] == [0, 1]
    assert result.totals.num_recomputed_tokens == 4
    assert result.totals.peak_bytes == (12 + STAGING) * SLOT_BYTES
    # B waits for memory from 208 on, while A runs alone.
    assert result.shares(for_memory=True).time_s == pytest.approx((679 - 208) * 1e-9)
    assert result.shares(for_memory=True).mean_batch == 1
    # Swapped out, its 4 slots take 5 + 4 · 10 more; swapped in, 45 and an iteration's 100 of launches: 679 + 45 + 145.
    swapped = run(strategy, [(0, 4, 4), (0, 4, 4)], 12 + STAGING, preemption="swap")
    assert results(swapped)["finish_ns"] == [679 + 45, 679 + 45 + 145 + 471]
    assert (swapped.totals.num_recomputed_tokens, swapped.totals.moved_bytes) == (0, 8 * SLOT_BYTES)


def test_a_prompt_in_chunks_takes_turns_with_answers():
    # Chunks of 2: A's 5 tokens: 150 + 2 written + 3 pairs; + 2 + 2 · 2 + 3; + 1 + 5: 155, 314, 470. B comes at 1 and
    # has the one token of the third iteration's two that A leaves (+ 1 + 1): 472. A has ended; the next has B's last
    # (1 + 2), which completes its prompt: 625.
    result = run(Paged(block_size=4, pool_tokens=40), [(0, 5, 1), (1, 2, 1)], 40 + STAGING, scheduling=Scheduling(2))
    assert results(result)["admitted_ns"] == [0, 314]
    assert results(result)["first_token_ns"] == results(result)["finish_ns"] == [472, 625]


def test_two_wait_for_memory_while_prompts_come_in_chunks_and_what_leaves_is_swapped():
    # Four blocks of 4; every iteration, with A, B and C in order, is 100 + 50 and what they read and write.
    # 0: A's 4: 164. A's 5th (6) takes the second block, B's 4 (14) the third: 334; C has none of the chunk's 4 tokens.
    # 334: A's 6th (7), B's 5th (6) takes the last block; C finds none, and waits on: 497. Three steps of both: 8 + 7,
    # 9 + 8, and A's 9th (10), a third block, for which B's 7 are swapped out (5 + 70): 662, 829, 1,064, where A ends.
    # 1,064: B's 7 are swapped in (75), C's first 4 of 6 are computed (14): 1,303. B's 8th (9), C's last 2 (13): 1,475.
    # 1,475: B's 9th (10), a third block, for which C's 6 are swapped out (65): 1,700; B's last: 1,861, 2,023.
    # 2,023: C's 6 are swapped in, and nothing is computed (165): 2,188; C's 7th and 8th (8, 9): 2,346, 2,505.
    rows = [(0, 4, 6), (0, 4, 8), (0, 6, 3)]
    strategy = Paged(block_size=4, pool_tokens=16)
    result = run(strategy, rows, 16 + STAGING, preemption="swap", scheduling=Scheduling(4))
    assert results(result) == {
        "admitted_ns": [0, 164, 1_064],
        "first_token_ns": [164, 334, 1_475],
        "finish_ns": [1_064, 2_023, 2_505],
        "num_preemptions": [0, 1, 1],  # C had no step when it went for the first time
        "outcome": [0, 0, 0],
        "finish_order": [0, 1, 2],
        "held_tokens": [9, 11, 8],
    }
    assert (result.totals.moved_bytes, result.totals.num_recomputed_tokens) == ((2 * 7 + 2 * 6) * SLOT_BYTES, 0)
    assert result.totals.num_prompt_tokens == 4 + 4 + 6
    # B waits from 0 and from 829 on, C from 0, all the time, and from 1,475 on.
    waited_ns = 164 + (1_064 - 829) + 1_064 + (2_023 - 1_475)
    assert result.timeline.queue.sum() * result.timeline.bin_ns == pytest.approx(waited_ns)


PLAIN, SMALL, WHOLE = Paged(block_size=1, pool_tokens=100), Paged(block_size=4, pool_tokens=12), Exact(round_to=1)


@pytest.mark.parametrize(
    ("strategy", "slots", "rows", "options", "bound_ns"),
    [
        # A prompt of 4 takes 164; C comes 36 after A has ended.
        (PLAIN, 100 + STAGING, [(0, 4, 1), (200, 4, 1)], {}, {"arrivals": 200 + 164}),
        # B comes while A's prompt is computed, and waits through A's one decode step of 156.
        (PLAIN, 100 + STAGING, [(0, 4, 2), (9, 4, 1)], {"max_batch": 1}, {"batch": 156, "arrivals": 164 + 164}),
        # 5 of 8 slots are reserved for A: B's 4 do not fit while A decodes. Each admission takes 40.
        (WHOLE, 8, [(0, 4, 2), (9, 4, 1)], {}, {"memory": 156, "arrivals": 204 + 204}),
        # B waits while A decodes (see above): the budget has room for three blocks, or, last, for a fourth.
        (SMALL, 15 + STAGING, [(0, 4, 4)] * 2, {}, {"memory": 471, "arrivals": 208 + 164 + 471}),
        (SMALL, 16 + STAGING, [(0, 4, 4)] * 2, {}, {"pool": 471, "arrivals": 208 + 164 + 471}),
        # A's first half is 2 written and 3 pairs, its second 2 and 7: while that is computed, B waits for its turn, in
        # the queue or admitted.
        (
            PLAIN,
            100 + STAGING,
            [(0, 4, 1), (9, 2, 1)],
            {"scheduling": Scheduling(2)},
            {"computing": 159, "arrivals": 310},
        ),
        (WHOLE, 100, [(0, 4, 1), (9, 2, 1)], {"scheduling": Scheduling(2)}, {"computing": 199, "arrivals": 350}),
        # One of two replicas is as two rows above, the other has nothing to do but for its first 164.
        (
            PLAIN,
            100 + STAGING,
            [(0, 4, 2), (1, 4, 1), (9, 4, 1)],
            {"max_batch": 1, "replicas": 2},
            {"batch": 78, "arrivals": 406},
        ),
    ],
)
def test_what_bound_the_service(strategy, slots, rows, options, bound_ns):
    result = run(strategy, rows, slots, **options)
    span_ns = result.totals.makespan_ns
    found = {name.removesuffix("_share"): share * span_ns for name, share in result.limits._asdict().items() if share}
    assert found == pytest.approx(bound_ns)
    assert sum(result.limits) == pytest.approx(1)
    assert span_ns == sum(bound_ns.values())


def test_growth_copies_and_holds_a_tensor_twice():
    # 4 slots at admission, 40. The prompt of 4: 150 + 4 + 10: 204. The 5th token grows to 6, copying 4: 40 + 8 more;
    # 150 + 1 + 5: 408. The peak is 6 slots and a fourth (one of four tensors) of 4.
    strategy = Dynamic(initial_capacity=4, growth_factor=1.5, max_capacity=64, round_to=1)
    result = run(strategy, [(0, 4, 2)], 7)
    assert results(result)["finish_ns"] == [408]
    assert (result.totals.num_resizes, result.totals.copied_bytes) == (1, 4 * SLOT_BYTES)
    assert result.totals.peak_bytes == 7 * SLOT_BYTES
    assert results(run(strategy, [(0, 4, 2)], 6))["outcome"] == [2]


def test_a_buddy_allocator_rounds_up_and_splits_memory():
    # Of 16 slots, each request of 5 takes 8: two are live, and the third waits though 6 slots were never reserved.
    rows = [(0, 3, 3)] * 3
    counted, buddy = (run(Exact(round_to=1), rows, 16, space=space) for space in ("counting", "buddy"))
    assert counted.totals.num_iterations == 3
    assert buddy.totals.num_iterations == 6
    waiting = buddy.shares(for_memory=True)
    assert waiting.rounded > 0
    assert waiting.internal_waste == pytest.approx(0)
    # Best fit: 5 + 5 + 5 of 16 fit as counted.
    assert results(run(Exact(round_to=1), rows, 16, space="best_fit")) == results(counted)


def test_free_slots_apart_are_not_usable():
    # 12 slots: A (2), B (4), C (6); A and C end with B between them. D needs 8, and 8 are free, but not in one piece.
    rows = [(0, 1, 2), (0, 2, 3), (0, 5, 2), (1, 7, 2)]
    counted, fitted = (run(Exact(round_to=1), rows, 12, space=space) for space in ("counting", "best_fit"))
    assert counted.admitted_ns[3] < fitted.admitted_ns[3]
    assert fitted.admitted_ns[3] >= fitted.finish_ns[1]


def test_who_does_not_fit_alone_and_who_is_too_long():
    result = run(Static(max_seq_len=8), [(0, 4, 5), (5, 4, 6), (9, 9, 1)], 8)
    assert results(result)["outcome"] == [0, 1, 1]
    assert results(result)["held_tokens"] == [8, 8, 0]
    assert results(run(Exact(round_to=1), [(3, 4, 9), (4, 1, 1)], 8))["outcome"] == [2, 0]
