"""A router that learns every so often which blocks replicas have."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.engine.eviction import EVICTIONS
from kvbench.engine.scheduling import Scheduling
from kvbench.engine.tiers import BELOW, TIER_WRITES
from kvbench.fleet.fleet import Fleet
from kvbench.fleet.routing import prefix_cost
from kvbench.fleet.state import LOAD_PARTS
from kvbench.fleet.steps import STEP_NS
from kvbench.workload.request import NS_PER_S
from tests.support.imitated import Asked, Engine
from tests.test_fleet_prefix import REQUESTS, columns_of, served, texts_of
from tests.test_fleet_tiers import TIERS
from tests.test_fleet_tiers import served as served_below
from tests.test_fleet_windows import VLLM, by_fleet


class Routed:
    """Engines in step, and a router that goes by a copy of the names of their blocks, made at multiples of a delay.

    Args:
        asked: requests, in order.
        parents: of each, the number of the one that it follows, or None; a step later at the earliest.
        num_replicas: engines.
        delay_ns: between copies.
        load: what a block that others hold counts, in LOAD_PARTS.
        of_engine: what `Engine` takes.
    """

    def __init__(self, asked, parents, num_replicas, delay_ns, load, *of_engine):
        self.engines = [Engine([], *of_engine) for _ in range(num_replicas)]
        self.names, self.delay_ns, self.num_looks = [set() for _ in self.engines], delay_ns, 0
        self.left, self.parents, self.last = list(asked), parents, num_replicas - 1
        self.asked, self.places, self.load = asked, {}, load

    def run(self):
        """Serve all, and say where each went."""
        step = 0
        while any(request.finished < 0 for request in self.asked):
            if step * STEP_NS // self.delay_ns > self.num_looks:
                self.num_looks = step * STEP_NS // self.delay_ns
                self.names = [set(engine.pool.named) for engine in self.engines]
            for request in [own for own in self.left if self._is_due(own, step)]:
                self.left.remove(request)
                self.last = self._best(request)
                self.places[request.number] = self.last
                request.arrival = step
                self.engines[self.last].coming.append(request)
            for engine in self.engines:
                engine.one_step()
            step += 1
        return [self.places[number] for number in range(len(self.asked))]

    def _is_due(self, request, step):
        parent = self.parents[request.number]
        if parent is not None and not 0 <= self.asked[parent].finished < step:
            return False
        return request.arrival <= step

    def _best(self, request):
        turn = [(self.last + 1 + j) % len(self.engines) for j in range(len(self.engines))]
        return min(turn, key=lambda replica: self._cost(request, replica))

    def _cost(self, request, replica):
        engine, size = self.engines[replica], self.engines[replica].pool.size
        keys = request.keys[: request.prompt // size]
        found = next((i for i, key in enumerate(keys) if key not in self.names[replica]), len(keys))
        active = len(engine.pool.holders) - len(engine.pool.free)
        waiting = len(engine.coming) + len(engine.waiting)
        return prefix_cost(len(keys) - found, active, waiting, len(keys), self.load)


@settings(max_examples=300, deadline=None)
@given(
    drawn=REQUESTS,
    size=st.sampled_from([1, 2]),
    spare=st.integers(0, 12),
    max_live=st.integers(1, 4),
    budget=st.integers(5, 20),
    replicas=st.integers(1, 4),
    delay_ns=st.integers(STEP_NS // 3, 8 * STEP_NS) | st.integers(1, 30).map(lambda steps: steps * STEP_NS),
    follows=st.sampled_from([None, 1, 2]),
    load=st.sampled_from([0, 300, LOAD_PARTS, 4 * LOAD_PARTS]),
    is_stepped=st.booleans(),
    block=st.integers(1, 9),
)
def test_it_is_a_router_of_engines_that_copies_their_names(
    drawn, size, spare, max_live, budget, replicas, delay_ns, follows, load, is_stepped, block
):
    texts = texts_of(drawn)
    columns, numbers = columns_of(texts), np.arange(len(texts))
    parents = [None] * len(texts)
    if follows is not None:  # each the one so many before it
        parents = [number - follows if number >= follows else None for number in numbers.tolist()]
        columns = replace(
            columns,
            parents=numbers[: max(len(texts) - follows, 0)],
            parent_offsets=np.append(0, np.cumsum([parent is not None for parent in parents])),
            sessions=numbers % follows,
            turns=numbers // follows,
            think_ns=numbers * 0,
        )
    num_blocks = max(-(-(len(prompt) + len(answer)) // size) for _, prompt, answer in texts) + spare
    asked = [
        Asked(number, arrival, len(prompt), len(answer), columns.contents.block_keys(number, size))
        for number, (arrival, prompt, answer) in enumerate(texts)
    ]
    places = Routed(asked, parents, replicas, delay_ns, load, num_blocks, size, max_live, budget).run()
    chosen = {"replicas": replicas, "routing": "prefix", "routing_delay_s": delay_ns / NS_PER_S}
    chosen["routing_load"] = load / LOAD_PARTS
    found = served(columns, num_blocks, size, max_live, budget, step_by_step=is_stepped, **chosen)
    assert found.replica.tolist() == places
    assert found.hit_tokens.tolist() == [request.hits for request in asked]
    assert found.finish_ns.tolist() == [(request.finished + 1) * STEP_NS for request in asked]
    pieces = []
    folded = served(columns, num_blocks, size, max_live, budget, fold=pieces.append, block=block, **chosen)
    assert folded.totals == found.totals


def _places(delay_steps, texts, **options):
    chosen = {"replicas": 2, "routing": "prefix", "routing_delay_s": delay_steps * STEP_NS / NS_PER_S}
    found = served(columns_of(texts), 64, 2, 3, 16, **chosen | options)
    return found.replica.tolist(), found.hit_tokens.tolist()


def test_what_came_since_the_last_look_is_not_known():
    # One text of 8 tokens. Looks are at 0, 15, 30, ...: at 10 nothing is known, and the next in turn is asked; at 20
    # and 40 both have it, and it is their turn.
    texts = [(10 * i, (1,) * 8, (0,)) for i in (0, 1, 2, 4)]
    assert _places(0, texts) == ([0, 0, 0, 0], [0, 6, 6, 6])
    assert _places(15, texts) == ([0, 1, 0, 1], [0, 0, 6, 6])
    # A look at the moment itself knows.
    assert _places(10, texts) == _places(0, texts)
    assert _places(1_000, texts)[0] == [0, 1, 0, 1]


def test_what_grew_is_learned_at_the_next_look():
    # Ones hold 13 of 16 tokens at the look at 10, six blocks of eight, and all at the look at 20. At 25 twos hold seven
    # blocks of that replica: with none of eight missing there it costs less than the other, with two missing more.
    texts = [(0, (1,) * 4, (1,) * 13), (14, (3,) * 2, (3,)), (21, (2,) * 10, (2,) * 9), (25, (1,) * 16, (4,))]
    assert _places(10, texts) == ([0, 1, 0, 0], [0, 0, 0, 14])
    assert _places(24, texts) == ([0, 1, 0, 0], [0, 0, 0, 14])
    assert _places(26, texts)[0] == [0, 1, 0, 1]


def test_what_went_since_the_last_look_is_still_believed():
    # Replicas of 5 blocks of 2. The text of zeros is on the first, of ones on the second, and a long one at 12 puts out
    # all of the first. Zeros at 16 go where they were at 10, and find nothing; who sees goes to the next in turn.
    texts = [(0, (0,) * 4, (0,)), (1, (1,) * 8, (1,)), (12, (2,) * 9, (2,)), (16, (0,) * 4, (0,))]
    late, seen = (
        served(columns_of(texts), 5, 2, 3, 16, replicas=2, routing="prefix", routing_delay_s=delay * STEP_NS / NS_PER_S)
        for delay in (10, 0)
    )
    assert late.replica.tolist() == [0, 1, 0, 0]
    assert seen.replica.tolist() == [0, 1, 0, 1]
    assert late.hit_tokens.tolist() == seen.hit_tokens.tolist() == [0, 0, 0, 0]


@settings(max_examples=150, deadline=None)
@given(
    drawn=REQUESTS,
    spare=st.integers(0, 12),
    replicas=st.integers(1, 3),
    load=st.sampled_from([0.0, 1.0, 4.0]),
    eviction=st.sampled_from(EVICTIONS),
    tiers=st.just([]) | TIERS,
    writes=st.sampled_from(TIER_WRITES),
)
def test_looking_whenever_somebody_is_sent_is_seeing(drawn, spare, replicas, load, eviction, tiers, writes):
    """With every order, or with tiers below the device."""
    texts = texts_of(drawn)
    num_blocks = max(-(-(len(prompt) + len(answer)) // 2) for _, prompt, answer in texts) + spare
    options = {"replicas": replicas, "routing": "prefix", "routing_load": load}

    def found(delay_s):
        chosen = options | {"routing_delay_s": delay_s}
        if tiers:
            below = sorted(tiers, key=lambda tier: BELOW.index(tier[0]))
            return served_below(columns_of(texts), num_blocks, 2, below, writes=writes, **chosen)
        return served(columns_of(texts), num_blocks, 2, 3, 8, eviction=eviction, **chosen)

    seen, looked = found(0.0), found(STEP_NS / NS_PER_S)
    assert seen.replica.tolist() == looked.replica.tolist()
    assert seen.totals == looked.totals


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"routing_delay_s": -1.0}, "routing_delay_s is a number of at least 0 and at most .*, got -1.0"),
        (
            {"routing": "session"},
            "routing_delay_s=2 is how late a router knows of blocks, and routing=session asks for none: leave it 0, or "
            "set routing to prefix",
        ),
    ],
)
def test_a_delay_of_nothing_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        Fleet(**{"routing": "prefix", "routing_delay_s": 2.0} | changed)


def test_groups_with_tables_of_their_own_are_refused():
    chosen = {"name": "equal blocks", "size": 2, "spare": 4, "max_batch": 2, "rules": Scheduling(8, **VLLM)}
    message = (
        "routing_delay_s=1 is of layers that all hold the same blocks, .*: leave it 0, or set window_blocks to keep"
    )
    with pytest.raises(ValueError, match=message):
        by_fleet(columns_of(texts_of([])), chosen | {"is_kept": True}, routing="prefix", routing_delay_s=1.0)
