"""A fleet's tables of blocks by group of layers: windows give back what they left, prefixes are found in all groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.backend.choice import Conditions
from kvbench.backend.modelled import Modelled, ModelledBackend
from kvbench.engine.scheduling import Scheduling
from kvbench.fleet import OUTCOMES, simulate
from kvbench.fleet.state import ROUTINGS
from kvbench.ledger import Limits
from kvbench.ledger.costs import workspace_bytes
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import LayerGroup, StateTensor
from kvbench.plan.ops import Drop
from kvbench.runner.recorder import STEP_FIELDS
from kvbench.runner.run import run
from kvbench.strategy.paged import KEEP, LATE, Paged
from kvbench.timing.pricing import prices_of
from kvbench.timing.work import work_of_parameters
from kvbench.workload.columns import requests_by_turn
from tests.support import fleet_models
from tests.support.fleet_models import COLUMNS, TIMES, results
from tests.support.machines import WEIGHTS, machine
from tests.test_fleet_groups import group
from tests.test_fleet_prefix import REQUESTS, columns_of, texts_of


def state(*layers, columns):
    recurrent = StateTensor(name="recurrent", rows=1, columns=columns, dtype="float16")
    return LayerGroup(kind="state", layers=layers, state=(recurrent,))


MODELS = {
    "equal blocks": (group("full", 0), group("window", 1, tokens=6)),
    "unequal blocks": (group("full", 2), group("window", 0, 1, 3, tokens=9)),
    "two windows": (group("window", 0, tokens=3), group("window", 1, 2, tokens=20), group("full", 3)),
    "chunks": (group("full", 1), group("chunked", 0, 2, tokens=7)),
    "states": (group("full", 0), state(1, 2, columns=5)),
    "large states": (group("latent", 0, key_dim=12, num_heads=4), group("full", 3), state(1, 2, columns=80)),
}
GEOMETRIES = {name: KVGeometry(groups=groups, dtype="float16", name=name) for name, groups in MODELS.items()}
VLLM = {"counts_decode": True, "waits_for_end": False, "fits_prompts": True, "plans_steps": True}
CHOSEN = st.fixed_dictionaries(
    {
        "name": st.sampled_from([*MODELS]),
        "size": st.sampled_from([1, 2, 4]),
        "spare": st.integers(-2, 30),
        "max_batch": st.integers(1, 5),
        "rules": st.integers(5, 20).map(lambda tokens: Scheduling(tokens, **VLLM)),
        "is_kept": st.booleans(),
        "interval": st.sampled_from([0, 1, 8]),
    }
)


def pool_of(columns, name, size, spare, max_batch, is_kept, rules, interval=1):
    """Paged over a pool that has room for the longest in full layers, or with two states, and little more; and the
    budget that holds it."""
    geometry = GEOMETRIES[name]
    longest = int((columns.num_prompt_tokens + columns.num_output_tokens).max())
    states_bytes = geometry.state_bytes * (2 if is_kept else max_batch)
    of_states = -(-states_bytes // (size * geometry.bytes_per_token)) if is_kept else 0
    slots = max(-(-longest // size) + of_states + spare, 1) * size
    blocks = KEEP if name == "chunks" else LATE
    made = Paged(block_size=size, pool_tokens=slots, window_blocks=blocks, prefix_caching=is_kept)
    known = {"is_modelled": True, "step_tokens": rules.tokens}
    known |= {"window_interval": interval, "state_interval": interval}
    made = made.fitted(Limits(geometry=geometry, budget_bytes=None, **known))
    beside_bytes = workspace_bytes(made.areas, geometry, 1) + (0 if is_kept else states_bytes)
    return made, made.ledger(geometry).pool_bytes["main"] + beside_bytes


def by_fleet(columns, chosen, **options):
    made, budget_bytes = pool_of(columns, **chosen)
    geometry = GEOMETRIES[chosen["name"]]
    prices = prices_of(machine(), work_of_parameters(geometry, WEIGHTS))
    known = {"geometry": geometry, "budget_bytes": budget_bytes, "max_batch": chosen["max_batch"]}
    return simulate(columns, made, prices, scheduling=chosen["rules"], **known | options)


class Dropping(ModelledBackend):
    """The modelled backend, and how many blocks that nobody held were dropped."""

    num_dropped = 0

    def step(self, booking, *what, **how):
        self.num_dropped += sum(isinstance(op, Drop) for op in booking.plan)
        return super().step(booking, *what, **how)


def by_runner(columns, chosen):
    """What the runner finds: columns a request, tokens hit among them, and blocks evicted."""
    made, budget_bytes = pool_of(columns, **chosen)
    known = Conditions(geometry=GEOMETRIES[chosen["name"]], hardware=machine(), weights=WEIGHTS)
    backend = Dropping(Modelled(memory_fraction=0.5), known)
    backend.scheduling, interval = chosen["rules"], chosen.get("interval", 1)
    backend.window_interval = backend.state_interval = interval
    counts = {"num_repetitions": 1, "num_warmup": 0, "max_concurrency": chosen["max_batch"]}
    recorder = run({"it": made}, requests_by_turn(columns), backend, budget_bytes=budget_bytes, **counts)
    rows = dict(zip(STEP_FIELDS, recorder.steps().T, strict=True))
    step_ns = np.maximum(sum(rows[name] for name in TIMES), rows["host_ns"])
    found = fleet_models._requests(recorder, rows, np.cumsum(rows["idle_ns"] + step_ns), step_ns)
    ended = sorted(recorder.requests, key=lambda row: row.session)
    columns = {name: found[name].tolist() for name in COLUMNS}
    own = {"held_tokens": [row.held_tokens for row in ended], "hit_tokens": [row.hit_tokens for row in ended]}
    return columns | own, backend.num_dropped


def told(result):
    """A fleet's columns, by name, as lists."""
    finish_ns = np.where(result.outcome == OUTCOMES.index("completed"), result.finish_ns, -1)
    return results(result) | {"hit_tokens": result.hit_tokens.tolist(), "finish_ns": finish_ns.tolist()}


@settings(max_examples=300, deadline=None)
@given(drawn=REQUESTS, chosen=CHOSEN)
def test_it_equals_the_runner(drawn, chosen):
    columns = columns_of(texts_of(drawn))
    result = by_fleet(columns, chosen)
    assert (told(result), result.totals.num_evicted_blocks) == by_runner(columns, chosen)


ALONE = {"max_batch": 2, "is_kept": True, "interval": 0, "rules": Scheduling()}
# Draws in which a block without a name went free before others that were to make room had gone; and in which a request
# found windows that overlap.
APART = [
    (
        [
            *((0, "0100000110", "0010"), (0, "01000001100110", "11000"), (0, "1011011", "1100")),
            *((2, "01", "001010"), (4, "10111011000110001", "000001")),
        ],
        {"name": "equal blocks", "size": 2, "spare": 14, "max_batch": 3, "is_kept": True, "interval": 0}
        | {"rules": Scheduling(8, **VLLM)},
    ),
    (
        [
            (0, "110111011", "1"),
            (0, "1101111", "0"),
            (0, "110111111000010111", "101100"),
            (2_000_000, "1101110", "100"),
        ],
        {"name": "equal blocks", "size": 1, "spare": 3, **ALONE},
    ),
]


@pytest.mark.parametrize(("texts", "chosen"), APART)
def test_draws_of_windows_that_were_apart_are_equal(texts, chosen):
    columns = columns_of([(arrival, tuple(prompt), tuple(answer)) for arrival, prompt, answer in texts])
    result = by_fleet(columns, chosen)
    assert (told(result), result.totals.num_evicted_blocks) == by_runner(columns, chosen)


ROUTED = st.fixed_dictionaries({"replicas": st.integers(1, 3), "routing": st.sampled_from(ROUTINGS)})


@settings(max_examples=150, deadline=None)
@given(drawn=REQUESTS, chosen=CHOSEN, options=ROUTED, late=st.booleans())
def test_jumping_gives_what_stepping_gives(drawn, chosen, options, late):
    texts = texts_of(drawn)
    if late:  # so that a bin of the timeline, which no jump goes beyond, has room for many steps
        texts.append((2_000_000, (0, 1, 1), (1,)))
    jumped, stepped = (by_fleet(columns_of(texts), chosen, step_by_step=each, **options) for each in (False, True))
    assert told(jumped) == told(stepped)
    assert jumped.totals == stepped.totals


def test_windows_leave_room_that_kept_blocks_do_not():
    # 40 tokens are 10 blocks of 4 in each group; a window of 6 holds 3 at most, and in a step 2 or 3.
    columns = columns_of([(0, (0,) * 8, (1,) * 33)])
    chosen = {"name": "equal blocks", "size": 4, "spare": 2, "max_batch": 1, "is_kept": False}
    chosen["rules"] = Scheduling(tokens=8, **VLLM)
    result = by_fleet(columns, chosen)
    assert result.outcome.tolist() == [OUTCOMES.index("completed")]
    staged = workspace_bytes(pool_of(columns, **chosen)[0].areas, GEOMETRIES["equal blocks"], 1)
    block_bytes = 4 * GEOMETRIES["equal blocks"].groups[0].token_bytes
    assert result.totals.peak_bytes - staged == (10 + 3) * block_bytes


def test_a_prompt_is_found_where_both_groups_have_it():
    # Two blocks of 4 are the window's that the second needs behind 12 tokens; its last token is computed.
    texts = [(0, (0,) * 12 + (1,), (1,)), (20_000, (0,) * 12 + (0,), (1,))]
    chosen = {"name": "equal blocks", "size": 4, "max_batch": 2, "is_kept": True}
    chosen["rules"] = Scheduling(tokens=20, **VLLM)
    hits = [by_fleet(columns_of(texts), chosen | {"spare": spare}).hit_tokens.tolist() for spare in (30, 1)]
    assert hits == [[0, 12], [0, 0]]
