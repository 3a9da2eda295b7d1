"""A fleet's requests in an address space, and all that they wait: by hand, and by what no rule can change."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kvbench.fleet import OUTCOMES
from kvbench.strategy.concat import Concat
from tests.support.fleet_models import SLOT_BYTES
from tests.test_fleet import BATCH, ROWS, SLOTS, run
from tests.test_fleet_golden import run as run_by_hand


@pytest.mark.parametrize(("num_output", "num_resizes", "num_copied"), [(3, 0, 0), (9, 1, 8)])
def test_growth_inside_a_buddys_block_moves_nothing(num_output, num_resizes, num_copied):
    # A prompt of 4 takes a block of 8; the answer fills it slot by slot, and its ninth token alone moves 8 to 16.
    result = run_by_hand(Concat(), [(0, 4, num_output)], 64, space="buddy", min_block_tokens=8)
    assert result.outcome.tolist() == [0]
    assert (result.totals.num_resizes, result.totals.copied_bytes) == (num_resizes, num_copied * SLOT_BYTES)


@pytest.mark.parametrize("name", ["paged", "chunked"])
@settings(max_examples=30, deadline=None)
@given(rows=ROWS, slots=SLOTS, max_batch=BATCH, preemption=st.sampled_from(["recompute", "swap"]))
def test_whoever_is_not_finished_is_live_or_waits(name, rows, slots, max_batch, preemption):
    """The time that requests spend, all together, is that of the queue and of the live ones, swapped or not."""
    result = run(name, rows, slots, max_batch, preemption=preemption)
    assume((result.outcome == OUTCOMES.index("completed")).all())
    spent_ns = (result.finish_ns - [arrival for arrival, _, _ in sorted(rows)]).sum()
    timeline = result.timeline
    seen_ns = (timeline.queue.sum() + timeline.batch.sum()) * timeline.bin_ns
    assert seen_ns == pytest.approx(spent_ns, rel=1e-6, abs=2 * len(rows))
