"""Blocks with names in models with states: where a state is kept, found and gone on from."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.record_workload import Shape, drawn, interned
from kvbench.api.validating import validate
from kvbench.calibration.validation.recordings import recording_of
from kvbench.calibration.validation.replayed import by_fleet, first_difference, replayed
from kvbench.engine.prefixes import cut_to_checkpoint, is_checkpoint, last_checkpoint
from kvbench.engine.vllm import VLLM
from kvbench.ledger import Ledger, LedgerError, Limits
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import CHUNKED, FULL, RECURRENT, STATE, LayerGroup, StateTensor
from kvbench.plan import Append, Area, Blocks, Drop, Keep, Publish, Reserve, Reuse, Rule
from kvbench.strategy.paged import Paged
from tests.support.engine_models import model
from tests.support.stated import Imitation

BLOCK, STATE_BYTES = 4, 40
SIZES = {"num_heads": 1, "num_kv_heads": 1, "key_dim": 1, "value_dim": 1, "dtype": "float16"}
KEPT = LayerGroup(
    kind=STATE, layers=(1, 2), state=(StateTensor(name=RECURRENT, rows=1, columns=STATE_BYTES // 4, dtype="float16"),)
)


def stated(*groups):
    groups = groups or (LayerGroup(kind=FULL, layers=(0,), **SIZES),)
    return KVGeometry(groups=(*groups, KEPT), dtype="float16", name="stated")


AREAS = (
    Area(layers=("full",), layout=Blocks(BLOCK, 20 * BLOCK)),
    Area("state", layers=("state",), layout=Blocks(BLOCK, None, of="main")),
)


def both(make, *args):
    return tuple(make(*args, area) for area in ("main", "state"))


def test_where_steps_of_a_prompt_end_by_hand():
    # A prompt of 10, in blocks of 4, steps of 8: to 8, where an equal prompt goes on from, and then 2 tokens.
    assert last_checkpoint(10, 4) == last_checkpoint(9, 4) == 8
    assert last_checkpoint(8, 4) == 4  # its last token is computed again
    assert cut_to_checkpoint(0, 8, 10, 10, 0, 8, 4) == cut_to_checkpoint(0, 10, 10, 10, 0, 16, 4) == 8
    assert cut_to_checkpoint(8, 2, 10, 10, 0, 8, 4) == 2
    # With 7 left it ends with a block, with 3 it computes nothing; where steps have no more than that, it computes 3,
    # and then what is left of the block.
    assert cut_to_checkpoint(0, 7, 20, 20, 0, 8, 4) == 4
    assert cut_to_checkpoint(0, 3, 20, 20, 0, 8, 4) == 0
    assert cut_to_checkpoint(0, 3, 20, 20, 0, 3, 4) == 3
    assert cut_to_checkpoint(3, 3, 20, 20, 0, 3, 4) == 1
    # Others begin with the same 12 tokens, and there is no state: it stops there. Who decodes is not cut.
    assert cut_to_checkpoint(4, 16, 30, 30, 12, 32, 4) == 8
    assert cut_to_checkpoint(10, 1, 10, 10, 0, 8, 4) == 1
    # Who gave way with 3 tokens of its answer computes 10 + 3 again: to 12, the last it is gone on from, and 1.
    assert cut_to_checkpoint(0, 13, 10, 13, 0, 32, 4) == 12


def test_which_states_are_kept_by_hand():
    def kept(interval, junction=0):
        return [tokens for tokens in range(25) if is_checkpoint(tokens, 18, junction, interval, 4)]

    assert kept(0) == [16]
    assert kept(0, junction=8) == [8, 16]
    assert kept(8) == [8, 16, 24]
    assert kept(4) == kept(1) == [4, 8, 12, 16, 20, 24]


def test_a_step_takes_one_state_wherever_it_ends():
    ledger = Ledger(stated(), areas=AREAS)
    ledger.open(0)
    ledger.book((*both(Reserve, 0, 12), *both(Append, 0, 12), Publish(0, "s", 12, "state")))
    held = ledger.accounts[0].holdings["state"]
    assert (len(held.blocks), held.num_blocks, held.num_bytes) == (3, 1, STATE_BYTES)
    assert ledger.pooled_bytes["main"] == 12 * 4 + STATE_BYTES
    assert ledger.used_bytes == 12 * 4 + STATE_BYTES
    assert ledger.accounts[0].by_group == {("main", "full"): 48, ("state", "state"): STATE_BYTES}
    # The next step goes on from it, and takes another; then the first one is left, and stays, as it has a name.
    ledger.book((*both(Reserve, 0, 16), *both(Append, 0, 1)))
    assert ledger.accounts[0].holdings["state"].num_blocks == 2
    ledger.book((Keep(0, Rule(recent=13 - 12), "state"),))
    assert ledger.accounts[0].holdings["state"].num_blocks == 1
    assert list(ledger.view.idle()) == ["s"]
    ledger.book((Drop("s"),))
    assert ledger.used_bytes == 13 * 4 + STATE_BYTES


def test_a_sequence_goes_on_from_a_state_alone():
    ledger = Ledger(stated(), areas=AREAS)
    ledger.open(0)
    ledger.open(1)
    ledger.book((*both(Reserve, 0, 8), *both(Append, 0, 8), *(Publish(0, n, 4 * n + 4) for n in range(2))))
    with pytest.raises(LedgerError, match="no state of sequence 0 was kept there"):
        ledger.book((Publish(0, "s", 4, "state"),))
    ledger.book((Publish(0, "s", 8, "state"),))
    ledger.book((Reuse(1, 0), Reuse(1, 1), Reuse(1, "s", "state"), *both(Reserve, 1, 12), *both(Append, 1, 3)))
    held = ledger.accounts[1].holdings["state"]
    assert (held.num_used, held.num_left, held.num_blocks, ledger.accounts[1].num_seen) == (11, 1, 2, 11)
    assert ledger.pooled_bytes["main"] == 12 * 4 + 2 * STATE_BYTES


@pytest.mark.parametrize(
    ("areas", "message"),
    [
        ((AREAS[0], Area("state", layers=("state",))), "states lie in blocks of another area's pool, alone"),
        ((Area(layers=("full", "state"), layout=Blocks(BLOCK, 40)),), "alone, or in no area; got layers full, state"),
    ],
)
def test_states_lie_in_blocks_of_a_pool_alone(areas, message):
    with pytest.raises(ValueError, match=message):
        Ledger(stated(), areas=areas)


def document(**changed):
    """Two requests that begin alike in a pool of 9 blocks of 4, of tokens or a state; and by hand what becomes of them.

    The first has a prompt of 10, computed to 8, where a state is kept, and 2 more. The second comes as it decodes, with
    the first 8 tokens and one of its own: it takes over 2 blocks and that state, which the first has left.
    """
    asked = [
        {"arrival_step": 0, "prompt_tokens": 10, "output_tokens": 2, "block_ids": [1, 2, 3]},
        {"arrival_step": 2, "prompt_tokens": 9, "output_tokens": 2, "block_ids": [1, 2]},
    ]
    steps = [
        [[[0, 8]], [], 6],  # 2 blocks of tokens, 1 state
        [[[0, 2]], [], 4],  # another of each; it goes on from the first state
        [[[0, 1], [1, 1]], [], 4],  # the first ends: of 5, and 2 of the second's, its 2 blocks that are shared stay
        [[[1, 1]], [], 9],
    ]
    said = {
        "engine": "vllm",
        "version": "0.33.0",
        "num_blocks": 10,
        "block_size": 4,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 8,
        "max_model_len": 64,
        "window": 0,
        "states": 1,
        "state_interval": 0,
        "prefix_caching": True,
        "queried_tokens": 19,
        "hit_tokens": 8,
        "requests": asked,
        "steps": steps,
    }
    return said | changed


def passing():
    """Steps of 9 tokens, by hand, in which one who decodes has no turn, since prompts before it take all.

    The first ends in step 1; the second begins with its first 4 tokens, and stops there. The third, of 20 tokens, is
    cut to 4, and in step 3, where the second takes 8 of 9, to none: the last one comes in for the token that is left.
    In step 4 the second takes 1 and the third 8, and the last one waits.
    """
    asked = [
        {"arrival_step": 0, "prompt_tokens": 9, "output_tokens": 1, "block_ids": [1, 2]},
        {"arrival_step": 2, "prompt_tokens": 13, "output_tokens": 2, "block_ids": [1, 3, 4]},
        {"arrival_step": 2, "prompt_tokens": 20, "output_tokens": 1, "block_ids": [5, 6, 7, 8, 9]},
        {"arrival_step": 3, "prompt_tokens": 1, "output_tokens": 3, "block_ids": [10]},
    ]
    steps = [
        [[[0, 8]], [], 37],  # 2 blocks and a state
        [[[0, 1]], [], 40],
        [[[1, 4], [2, 4]], [], 36],
        [[[1, 8], [3, 1]], [], 31],  # 3 blocks and 2 states, a block and a state twice
        [[[1, 1], [2, 8]], [], 27],  # 4 and 2, 3 and 2, 1 and 1
        [[[1, 1], [2, 4], [3, 1]], [], 32],  # the second ends; the third has 4 and 2, the last one 1 and 1
        [[[2, 4], [3, 1]], [], 40],
    ]
    sizes = {"num_blocks": 41, "max_num_batched_tokens": 9, "queried_tokens": 43, "hit_tokens": 0}
    return document(requests=asked, steps=steps, **sizes)


@pytest.mark.parametrize("serve", [replayed, by_fleet])
@pytest.mark.parametrize("made", [document, passing])
def test_a_recording_by_hand_is_equal_in_every_step(made, serve):
    said = made()
    ours = serve(recording_of(said))
    assert first_difference(recording_of(said).steps, ours.steps) is None
    assert (ours.queried_tokens, ours.hit_tokens) == (said["queried_tokens"], said["hit_tokens"])


@pytest.mark.parametrize(("name", "num_steps"), [("vllm_states", 1_185), ("vllm_every_state", 886)])
def test_a_schedulers_recorded_steps_are_equal(name, num_steps):
    found = validate(Path(__file__).parent / "recordings" / f"{name}.json.gz", fail_if="worst>0")
    assert found.failed == ()
    assert f"runner: equal, {num_steps:,} steps" in found.text
    assert f"fleet: equal, {num_steps:,} steps" in found.text


@given(
    size=st.sampled_from([2, 4, 8]),
    spare=st.integers(1, 40),
    tokens=st.integers(5, 40),
    interval=st.sampled_from([0, 1, 2, 3]),
    most=st.integers(1, 5),
    seed=st.integers(0, 10_000),
    every=st.sampled_from([0, 1, 4]),
)
@settings(max_examples=60, deadline=None)
def test_it_schedules_as_a_plain_imitation(size, spare, tokens, interval, most, seed, every):
    shape = Shape(
        requests=14,
        every=every,
        prompt_tokens=(1, 50),
        output_tokens=(1, 12),
        shared_prefixes=2,
        shared_tokens=(3, 30),
        share=0.6,
        repeat=0.1,
        follow=0.3,
        max_tokens=120,
        seed=seed,
    )
    asked = drawn(shape)
    rows = [
        {
            "arrival_step": each.arrival_step,
            "prompt_tokens": len(each.prompt),
            "output_tokens": len(each.answer),
            "block_ids": ids,
        }
        for each, ids in zip(asked, interned(asked, size), strict=True)
    ]
    longest = max(len(each.prompt) + len(each.answer) for each in asked)
    said = document(
        block_size=size,
        num_blocks=-(-longest // size) + 3 + spare,
        max_num_batched_tokens=tokens,
        max_num_seqs=most,
        max_model_len=200,
        state_interval=interval * size,
        requests=rows,
        steps=[],
    )
    plain = Imitation(said)
    plain.serve()
    recording = recording_of(said | {"steps": plain.steps})
    for serve in (replayed, by_fleet):
        ours = serve(recording)
        assert first_difference(recording.steps, ours.steps) is None
        assert ours.hit_tokens == plain.hits


def fitted(geometry, limits=None, **options):
    chosen = Paged(prefix_caching=True, **options)
    return chosen.fitted(Limits(geometry=geometry, budget_bytes=100_000, is_modelled=True, **limits or {}))


def test_states_have_an_area_of_their_own_in_the_engines_blocks():
    assert [area.name for area in fitted(stated(), block_size=4).areas] == ["main", "state"]
    assert fitted(stated(), {"state_block_tokens": 544}).areas[0].blocks.num_tokens == 544
    assert fitted(stated(), {"state_block_tokens": 544}, block_size=64).areas[0].blocks.num_tokens == 64
    assert fitted(stated(), {}, block_size=2080).areas[0].blocks.num_tokens == 2080


@pytest.mark.parametrize(
    ("geometry", "options", "message"),
    [
        (
            stated(LayerGroup(kind=CHUNKED, layers=(0,), tokens=8, **SIZES)),
            {"block_size": 4},
            "prefix_caching: states are kept beside blocks of layers that all see all tokens, and stated has 1 chunked",
        ),
        (KVGeometry(groups=(KEPT,), dtype="float16", name="all"), {"block_size": 4}, "and all has 2 state layers"),
        (stated(), {"block_size": 4, "eviction": "lfu"}, "eviction=lfu orders blocks by what is behind them"),
        (stated(), {"block_size": 4, "host_bytes": 10_000}, "2 state layers: set it to 0"),
        (
            KVGeometry(groups=(LayerGroup(kind=FULL, layers=(0,), **SIZES),), dtype="float16", name="plain"),
            {"block_size": 48},
            "block_size divides 1024 where no states are kept, got 48, and plain has 1 full layer",
        ),
    ],
)
def test_what_does_not_go_with_states_is_refused(geometry, options, message):
    with pytest.raises(ValueError, match=message):
        fitted(geometry, **options)


@pytest.mark.parametrize(
    ("version", "said", "interval"), [(None, None, 0), ("0.28", None, 1), ("0.28", 0, 0), ("0.33", 1_088, 1_088)]
)
def test_vllm_keeps_every_state_before_0_29(version, said, interval):
    engine = VLLM(version=version, prefix_cache_retention_interval=said, max_model_len=1_000)
    assert engine.resolved(None, model(KEPT)).state_interval == interval
