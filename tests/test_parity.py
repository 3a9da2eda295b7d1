"""Runner and fleet, with prefixes and all else that one replica does: equal in every count and nanosecond."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.engine.eviction import EVICTIONS, LRU, OPTIMAL
from kvbench.engine.scheduling import Scheduling
from kvbench.engine.tiers import BELOW, TIER_LOADS, TIER_WRITES
from kvbench.fleet import OUTCOMES, simulate
from kvbench.fleet.blocks import run_whole
from kvbench.fleet.result import LOADED
from kvbench.fleet.state import ROUTINGS
from kvbench.results.tier_columns import MOVED
from kvbench.strategy.paged import Paged
from kvbench.timing.links import link_of
from kvbench.workload.trace_columns import TraceColumns
from tests.support.fleet_models import COLUMNS, PRICES, SLOT_BYTES, by_runner, that_go_on
from tests.support.imitated import contents_of
from tests.support.machines import GEOMETRY, machine

STAGING = 1024 // 2
COUNTS = ("num_evicted_blocks", "num_recomputed_tokens", "num_tokens", "left_bytes", *MOVED)
# A block takes as long from the host as computing it, or longer, and much longer from elsewhere.
MACHINE = machine(
    **{"host_bytes_per_s": 3e9, "disk_bytes_per_s": 1e9, "disk_s": 7e-8, "remote_bytes_per_s": 4e8, "remote_s": 2e-7}
)
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=16)
# Of each request: when it arrives, its session, which of the texts before it begins with, and how much of it, more of
# a prompt, an answer, its think time, and which of its session's requests before it follows.
REQUEST = st.tuples(
    *(st.integers(0, 60_000), st.integers(0, 4), st.integers(0, 9), st.integers(0, 40), TOKENS),
    *(st.lists(st.integers(0, 1), max_size=20), st.integers(0, 30_000), st.sets(st.integers(0, 3), max_size=3)),
)
REQUESTS = st.lists(REQUEST, min_size=1, max_size=14)
RULES = st.builds(
    Scheduling,
    tokens=st.sampled_from([None, 1, 4, 9, 20]),
    sequences=st.sampled_from([None, 2]),
    **dict.fromkeys(Scheduling._fields[2:], st.booleans()),
)
TIERED = st.fixed_dictionaries(
    {
        "blocks": st.lists(st.integers(0, 8), min_size=3, max_size=3),
        "tier_writes": st.sampled_from(TIER_WRITES),
        "tier_loads": st.sampled_from(TIER_LOADS),
        "prefetch": st.booleans(),
    }
)


def bounded(chosen):
    """Rules such as engines have: steps without a bound are an ideal one's."""
    rules = chosen["rules"]
    if rules.tokens is None:
        rules = Scheduling(sequences=rules.sequences, evicts=rules.evicts)
    return chosen | {"rules": that_go_on(rules)}


CHOSEN = st.fixed_dictionaries(
    {
        "eviction": st.sampled_from(EVICTIONS),
        "tiers": st.one_of(st.none(), TIERED),
        "size": st.sampled_from([1, 2, 4]),
        "spare": st.integers(0, 14),
        "max_batch": st.integers(1, 5),
        "rules": RULES,
        "is_kept": st.booleans(),
    }
).map(bounded)


def columns_of(drawn, follows, num_clients=None):
    """A trace of requests drawn, which share what they begin with; in sessions where some follow others."""
    rows, texts = sorted(drawn, key=lambda row: row[0]), []
    for _, _, which, cut, more, answer, _, _ in rows:
        before = texts[which % len(texts)] if texts else ((), ())
        texts.append(((*(before[0] + before[1])[:cut], *more), tuple(answer)))
    sessions, parents = np.unique([row[1] for row in rows], return_inverse=True)[1], []
    for number, row in enumerate(rows):
        own = np.flatnonzero(sessions[:number] == sessions[number]).tolist()
        picked = sorted({own[pick % len(own)] for pick in row[7]}) if own else []
        parents.append(picked or own[-1:] if num_clients is not None else picked)
    made = TraceColumns(
        arrival_ns=np.array([row[0] for row in rows]) * (num_clients is None),
        num_prompt_tokens=np.array([len(prompt) for prompt, _ in texts]),
        num_output_tokens=np.array([len(answer) for _, answer in texts]),
        contents=contents_of(texts),
        num_clients=num_clients,
    )
    if not follows:
        return made
    return replace(
        made,
        sessions=sessions,
        parents=np.array([parent for own in parents for parent in own], np.int64),
        parent_offsets=np.cumsum([0, *(len(own) for own in parents)]),
        think_ns=np.array([row[6] for row in rows]),
    )


def pool_of(columns, chosen):
    """Paged over a pool that has room for the longest, and little more; and the budget that holds it."""
    size = chosen["size"]
    longest = int((columns.num_prompt_tokens + columns.num_output_tokens).max())
    slots = max(-(-longest // size) + chosen["spare"] - 1, 1) * size
    options = {"eviction": chosen["eviction"] if chosen["is_kept"] else EVICTIONS[LRU]}
    if chosen["tiers"] is not None and chosen["is_kept"]:
        options |= chosen["tiers"]
        blocks = zip(BELOW, options.pop("blocks"), strict=True)
        options |= {f"{tier}_bytes": count * size * SLOT_BYTES for tier, count in blocks}
        options["prefetch"] &= sum(count > 0 for count in chosen["tiers"]["blocks"]) > 1
    shape = {"block_size": size, "pool_tokens": slots, "window_blocks": "keep", "prefix_caching": chosen["is_kept"]}
    return Paged(**shape, **options), (slots + STAGING) * SLOT_BYTES


def by_fleet(columns, chosen, hardware=MACHINE, **options):
    """As `by_runner`: columns a request, and totals; and the result."""
    made, budget_bytes = pool_of(columns, chosen)
    seen = []

    def serve(tables, *what):
        seen.append(tables)
        return run_whole(tables, *what)

    result = simulate(
        columns,
        made,
        PRICES,
        geometry=GEOMETRY,
        budget_bytes=budget_bytes,
        max_batch=chosen["max_batch"],
        scheduling=chosen["rules"],
        serve=serve,
        links={tier: link_of(hardware, tier, chosen["size"] * SLOT_BYTES) for tier in BELOW},
        **options,
    )
    found = {name: getattr(result, name).copy() for name in ("arrival_ns", "hit_tokens", *LOADED, *COLUMNS)}
    found["finish_ns"][result.outcome != OUTCOMES.index("completed")] = -1
    totals = vars(result.totals) | {"num_tokens": result.totals.num_prompt_tokens + result.totals.num_decoded_tokens}
    (tables,) = seen
    block_bytes = chosen["size"] * SLOT_BYTES
    free = tables.fixed["limit_bytes"] // block_bytes
    gone = np.maximum(tables.replicas["num_unused"] - free, 0)
    totals["num_evicted_blocks"] += int(gone.sum())
    totals["left_bytes"] = int((tables.replicas["num_unused"] - gone).sum()) * block_bytes
    for what in MOVED:
        count = f"num_{what.removesuffix('_bytes')}_blocks"
        totals[what] = [getattr(used, count) * block_bytes for used in result.tiers]
    return found, totals, result


def plain(found, totals):
    """What is compared; of who was not reached the outcome alone."""
    reached = np.where(found["outcome"] == OUTCOMES.index("unreached"), 0, 1)
    columns = {name: (found[name] if name == "outcome" else found[name] * reached).tolist() for name in found}
    return columns, {name: np.array(totals[name]).tolist() for name in COUNTS}


def equals(columns, chosen, hardware=MACHINE):
    made, budget_bytes = pool_of(columns, chosen)
    options = {"rules": chosen["rules"], "hardware": hardware}
    found, totals, _ = by_runner(columns, made, budget_bytes, chosen["max_batch"], **options)
    ours, our_totals, _ = by_fleet(columns, chosen, hardware)
    assert plain(ours, our_totals) == plain(found, totals)


WHO = {"drawn": REQUESTS, "chosen": CHOSEN, "follows": st.booleans()}
CLIENTS = st.sampled_from([None, None, 1, 2, 4])


@settings(max_examples=200, deadline=None)
@given(**WHO, num_clients=CLIENTS)
def test_a_replica_is_a_runner(drawn, chosen, follows, num_clients):
    equals(columns_of(drawn, follows, num_clients), chosen)


@pytest.mark.slow
@settings(max_examples=6_000, deadline=None)
@given(**WHO, num_clients=CLIENTS)
def test_a_replica_is_a_runner_in_many_cases(drawn, chosen, follows, num_clients):
    equals(columns_of(drawn, follows, num_clients), chosen)


# Each replica of Belady's cache knows all requests to come, whoever they will be sent to; a runner of its own, its own.
ROUTED = WHO | {"chosen": CHOSEN.filter(lambda chosen: chosen["eviction"] != EVICTIONS[OPTIMAL])}


@settings(max_examples=50, deadline=None)
@given(**ROUTED, routing=st.sampled_from(ROUTINGS), num=st.integers(2, 3))
def test_each_replica_is_a_runner_of_what_was_routed_to_it(drawn, chosen, follows, routing, num):
    columns = columns_of(drawn, follows)
    ours, _, result = by_fleet(columns, chosen, replicas=num, routing=routing)
    made, budget_bytes = pool_of(columns, chosen)
    for replica in np.unique(result.replica[result.outcome != OUTCOMES.index("unreached")]):
        rows = np.flatnonzero((result.replica == replica) & (result.outcome != OUTCOMES.index("unreached")))
        rows = rows[np.argsort(result.arrival_ns[rows], kind="stable")]
        own = TraceColumns(
            arrival_ns=result.arrival_ns[rows],
            num_prompt_tokens=columns.num_prompt_tokens[rows],
            num_output_tokens=columns.num_output_tokens[rows],
            contents=columns.contents.of(rows),
        )
        options = {"rules": chosen["rules"], "hardware": MACHINE, "goes_on": columns.goes_on[rows]}
        found, *_ = by_runner(own, made, budget_bytes, chosen["max_batch"], **options)
        assert {name: ours[name][rows].tolist() for name in ours} == {name: found[name].tolist() for name in found}
