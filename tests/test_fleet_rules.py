"""Strategies' integer rules, compiled; which have none; allocators; and what a fleet refuses."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from kvbench import fleet
from kvbench.compiled import kernel
from kvbench.engine.scheduling import Scheduling
from kvbench.fleet import simulate
from kvbench.fleet.kernel import COMPILED, run
from kvbench.fleet.rules import RULED, bound_rule
from kvbench.fleet.space import NUM_ORDERS, give_back, lay_out, take
from kvbench.fleet.state import (
    AFTER,
    AT_ONCE,
    BEFORE,
    BEST_FIT,
    BUDDY,
    FIXED,
    FULL,
    LIVE,
    NONE,
    OF_APPEND,
    REPLICA,
    REQUEST,
    REST,
    Machine,
)
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.exact import Exact
from kvbench.strategy.paged import Paged
from kvbench.strategy.power_of_two import PowerOfTwo
from kvbench.strategy.static import Static
from kvbench.workload.trace_columns import TraceColumns
from tests.support.catalogue import STRATEGIES, strategy
from tests.support.fleet_models import PRICES, columns_of
from tests.support.machines import GEOMETRY, WINDOWED


def refused(name):
    try:
        bound_rule(strategy(name))
    except ValueError as error:
        return str(error)
    return None


def test_which_strategies_have_integer_rules():
    assert tuple(name for name in STRATEGIES if refused(name) is None) == RULED


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("predictive", "decides by each sequence's past appends"),
        ("predictive_average", "decides by the requests completed before"),
        ("async", "decides by background work"),
        ("paged_hierarchical", "decides by how far one part has grown what the other reserves at once"),
    ],
)
def test_a_strategy_without_is_refused_with_the_reason(name, reason):
    assert reason in refused(name)
    assert "chunked, compressed, concat, dynamic, exact, fp8, heavy_hitters" in refused(name)


def test_a_rule_is_not_inherited_beside_another_hook():
    class Hoarding(Static):
        def on_append(self, seq, num_tokens, view):
            return ()

    with pytest.raises(ValueError, match="Hoarding has an on_append of its own, beside the integer rule of Static"):
        bound_rule(Hoarding(max_seq_len=8))


@pytest.mark.parametrize(
    "made",
    [
        Static(max_seq_len=4096),
        Dynamic(initial_capacity=300, growth_factor=1.5, max_capacity=8192, round_to=7),
        Dynamic(initial_capacity=1, growth_factor=1.1, max_capacity=10**9, round_to=1),
        Exact(round_to=16),
        PowerOfTwo(max_seq_len=2048),
        strategy("concat"),
        strategy("chunked"),
        strategy("paged"),
    ],
    ids=lambda made: type(made).__name__,
)
def test_a_compiled_rule_is_the_strategys(made):
    rule, bound = made.integer_rule, bound_rule(made)
    rng = random.Random(5)
    for _ in range(3_000):
        first, second = (rng.randrange(1 << rng.randrange(1, 28)) for _ in range(2))
        admitted, grown, _ = bound.compiled
        assert admitted.ctypes(first, second) == rule.admitted(first, second, *rule.admitted_by)
        assert grown.ctypes(first, second) == rule.grown(first, second, *rule.grown_by)


REDUCING = ("compressed", "heavy_hitters", "int4", "int8", "sinks", "snapkv")
MOVING = ("hierarchical", "hierarchical_disk", "sinks_int4", "streaming")


@pytest.mark.parametrize("name", REDUCING + MOVING)
def test_compiled_turns_are_the_strategys(name):
    made = strategy(name)
    turns, (*_, turned) = made.integer_rule.turns, bound_rule(made).compiled
    rng = random.Random(7)
    for _ in range(1_000):
        asked = [rng.randrange(1, 1 << rng.randrange(2, 20)) for _ in range(3)]
        found = [turned.ctypes(what, *asked) for what in (FULL, BEFORE, AFTER, REST, AT_ONCE, OF_APPEND)]
        one, two, three = ((*asked[:number], *turns.by) for number in (1, 2, 3))
        others = (turns.after(*three), turns.rest(*two), turns.at_once(*two), turns.of_append(*two))
        assert found == [turns.full(*one), turns.before(*three), *others]


def test_the_kernel_is_compiled_once_for_all_rules():
    columns = columns_of([(0, 3, 3)])
    for made in (Static(max_seq_len=8), Exact(round_to=1), Paged(block_size=4, pool_tokens=64), strategy("sinks")):
        simulate(columns, made, PRICES, geometry=GEOMETRY, budget_bytes=10**6, max_batch=2)
    assert len(run.signatures) == 1


def test_the_kernel_knows_all_files_that_are_compiled_into_it():
    folder = Path(fleet.__file__).parent
    files = [file for file in folder.rglob("*.py") if "@part" in file.read_text(encoding="utf-8")]
    parts = {file.relative_to(folder).with_suffix("").as_posix() for file in files}
    assert parts | {"kernel", "rows", "state"} == set(COMPILED)


@kernel
def drive(m, sizes, places):
    """Take ranges of positive sizes, and give those taken before back whose number a negative one is."""
    lay_out(m)
    for i in range(sizes.size):
        if sizes[i] > 0:
            places[i] = take(m, sizes[i])
        elif places[-sizes[i] - 1] != -1:
            give_back(m, places[-sizes[i] - 1], sizes[-sizes[i] - 1])


def space_of(kind, num_slots, min_block):
    fixed = np.zeros(1, FIXED)
    fixed["space"], fixed["space_slots"], fixed["min_block"] = kind, num_slots, min_block
    lists = np.zeros((4, max(num_slots + 2, NUM_ORDERS)), np.int64)
    requests, now, live = (np.zeros(1, dtype) for dtype in (REQUEST, REPLICA, LIVE))
    rules, no_prices = bound_rule(Exact(round_to=1)), np.zeros((1, 1), np.int64)
    return Machine(requests, now[0], live, np.zeros((1, 1)), lists, fixed[0], no_prices, *rules.compiled)


def orders(rng, size_of):
    """Random sizes and releases, each range given back at most once."""
    made, held = [], []
    for _ in range(400):
        if held and rng.random() < 0.47:
            made.append(-held.pop(rng.randrange(len(held))) - 1)
        else:
            held.append(len(made))
            made.append(size_of())
    return made


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("min_block", [1, 4])
def test_a_buddy_allocator_hands_out_any_aligned_range_that_is_free(seed, min_block):
    rng = random.Random(seed)
    num_slots = 4 * rng.randrange(20, 90)
    made = orders(rng, lambda: min_block << rng.randrange(5))
    places = np.full(len(made), NONE)
    drive(space_of(BUDDY, num_slots, min_block), np.array(made), places)
    taken = np.zeros(num_slots, bool)
    # The space begins as the powers of two that add up to it, the largest first; no range crosses their bounds.
    blocks = num_slots // min_block
    parts = [1 << order for order in range(20, -1, -1) if blocks >> order & 1]
    starts = np.cumsum([0, *parts]) * min_block
    for number, size in enumerate(made):
        if size < 0:
            if places[-size - 1] != NONE:
                taken[places[-size - 1] : places[-size - 1] + made[-size - 1]] = False
            continue
        free = [
            place
            for start, end in pairwise(starts.tolist())
            for place in range(start, end - size + 1, size)
            if not taken[place : place + size].any()
        ]
        place = places[number]
        assert (place == NONE) == (not free)
        if free:
            assert place in free
            taken[place : place + size] = True


@pytest.mark.parametrize("seed", range(6))
def test_best_fit_takes_the_shortest_free_range(seed):
    rng = random.Random(seed)
    made = orders(rng, lambda: rng.randrange(1, 25))
    places = np.full(len(made), NONE)
    drive(space_of(BEST_FIT, 200, 1), np.array(made), places)
    taken = np.ones(202, bool)  # a slot beyond each end
    taken[1:-1] = False
    for number, size in enumerate(made):
        if size < 0:
            if places[-size - 1] != NONE:
                taken[1 + places[-size - 1] : 1 + places[-size - 1] + made[-size - 1]] = False
            continue
        ends = np.flatnonzero(np.diff(taken.astype(int)))
        ranges = [(end - start, start) for start, end in ends.reshape(-1, 2).tolist() if end - start >= size]
        assert places[number] == (min(ranges)[1] if ranges else NONE)
        if ranges:
            taken[1 + places[number] : 1 + places[number] + size] = True


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_batch": 0}, "max_batch is a positive integer.*got 0"),
        ({"replicas": True}, "replicas is a positive integer.*got True"),
        ({"scheduling": Scheduling(1.5)}, "scheduling.tokens is a positive integer.*got 1.5"),
        ({"budget_bytes": 0}, "budget_bytes is a positive integer.*got 0"),
        ({"preemption": "swop"}, "Did you mean 'swap'"),
        ({"routing": "random"}, "routing"),
        ({"space": "budy"}, "Did you mean 'buddy'"),
        ({"min_block_tokens": 6}, "min_block_tokens is a power of two, got 6"),
    ],
)
def test_settings_out_of_range_are_refused(changed, message):
    chosen = {"geometry": GEOMETRY, "budget_bytes": 10**6, "max_batch": 2} | changed
    with pytest.raises(ValueError, match=message):
        simulate(columns_of([(0, 1, 1)]), Exact(round_to=1), PRICES, **chosen)


def test_blocks_have_no_place_in_an_address_space():
    with pytest.raises(ValueError, match="space=buddy places contiguous slots; Paged takes them in units"):
        simulate(
            columns_of([(0, 1, 1)]),
            Paged(block_size=4, pool_tokens=8),
            PRICES,
            geometry=GEOMETRY,
            budget_bytes=10**6,
            max_batch=1,
            space="buddy",
        )


def test_a_trace_comes_in_order_of_arrival():
    counts = np.array([1, 1])
    settings = {"geometry": GEOMETRY, "budget_bytes": 10**6, "max_batch": 2}
    for arrival_ns, message in ((None, "has none"), (np.array([5, 3]), "in order of arrival"), (counts[:0], "empty")):
        columns = TraceColumns(arrival_ns=arrival_ns, num_prompt_tokens=counts, num_output_tokens=counts)
        with pytest.raises(ValueError, match=message):
            simulate(columns, Exact(round_to=1), PRICES, **settings)


def test_an_address_space_has_slots_that_all_cost_the_same():
    settings = {"geometry": WINDOWED, "budget_bytes": 10**6, "max_batch": 2, "space": "buddy"}
    with pytest.raises(ValueError, match="Windowed has 1 full layer, 3 window layers: use counting"):
        simulate(columns_of([(0, 1, 1)]), Exact(round_to=1), PRICES, **settings)
