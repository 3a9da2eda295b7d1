"""Tiers below the device: what strategies, machines and the ledger refuse."""

from dataclasses import replace

import pytest

from kvbench.api.capacity import capacity
from kvbench.backend.choice import Conditions
from kvbench.backend.measured import Measured
from kvbench.configuration.parts import said_budget
from kvbench.ledger import Ledger, LedgerError, Limits
from kvbench.plan import Append, Drop, Publish, Release, Reserve, Reuse, Save
from kvbench.plan.ops import BadOperation
from kvbench.strategy.chain import Chain
from kvbench.strategy.hierarchical import Hierarchical
from kvbench.strategy.paged import Paged
from tests.support.machines import GEOMETRY, WINDOWED, machine
from tests.test_prefix_operations import AREA, BLOCK
from tests.test_tiers import AGAIN, BLOCK_BYTES, modelled, served

LIMITS = Limits(geometry=GEOMETRY, budget_bytes=None, live_tokens=(64,))
HELD = (Reserve(0, 2 * BLOCK), Append(0, 2 * BLOCK), Publish(0, "a", BLOCK), Publish(0, "b", 2 * BLOCK))


def booked(*plans, num_copies=1):
    """A ledger with a tier, the host, of so many blocks, and sequences 0 and 1."""
    ledger = Ledger(GEOMETRY, None, AREA, stores={"host": num_copies * BLOCK_BYTES})
    for seq in (0, 1):
        ledger.open(seq)
    for plan in (HELD, *plans):
        ledger.book(plan)
    return ledger


A, B = Save("a", "host"), Save("b", "host")


@pytest.mark.parametrize(
    ("before", "plan", "message"),
    [
        ((), (Save("a", "disk"),), "no tier 'disk' keeps copies of blocks, only host"),
        ((), (Save("a", "device"),), "no tier 'device' keeps copies of blocks, only host"),
        ((), (Save("c", "host"),), "neither the device nor a tier below it has a block of the name 'c'"),
        (((A,),), (B,), "a block of 256 bytes goes where 256 of 256 are taken"),
        ((), (Drop("a", "host"),), "tier host keeps no block of the name 'a'"),
        (((A,),), (Drop("a", "host"), Drop("a", "host")), "tier host keeps no block of the name 'a'"),
        (((A,),), (Reuse(1, "b", tier="host"),), "tier host keeps no block of the name 'b' for sequence 1"),
        (((B,),), (Reuse(1, "b", tier="host"),), "goes on after 4 tokens; sequence 1 has 0, in 0 slots"),
        (((A,),), (Reuse(1, "a", "side", "host"),), "there is no area 'side', only main"),
    ],
)
def test_the_ledger_refuses_what_contradicts_it_and_keeps_no_trace(before, plan, message):
    ledger = booked(*before)
    told = ledger.tier_bytes, dict(ledger.stored.copies["host"])
    with pytest.raises(LedgerError, match=message):
        ledger.book((Reserve(1, 0), *plan))
    assert (ledger.tier_bytes, ledger.stored.copies["host"]) == told


def test_copies_outlive_the_device_and_what_a_plan_drops_it_still_loads():
    ledger = booked((A,), (Release(0),), (Drop("b"), Drop("a")))
    assert ledger.tier_bytes == {"device": ledger.reading_bytes, "host": BLOCK_BYTES, "disk": 0, "remote": 0}
    receipt = ledger.book((Reserve(1, 0), Drop("a", "host"), Reuse(1, "a", tier="host")))
    assert receipt.moved_bytes == BLOCK_BYTES
    assert ledger.view.num_used(1) == BLOCK
    assert ledger.view.has_name("a")  # it has its name at once
    assert (ledger.tier_bytes["host"], ledger.stored.loaded_bytes) == (0, {"host": BLOCK_BYTES})
    assert ledger.held_bytes - ledger.fixed_bytes == 0
    with pytest.raises(BadOperation, match="Save: unknown tier 'tape'"):
        Save("a", "tape")


def test_one_that_is_stored_again_becomes_the_newest():
    ledger = booked((A, B, A), num_copies=2)
    assert list(ledger.stored.copies["host"]) == ["b", "a"]
    assert ledger.stored.written_bytes == {"host": 2 * BLOCK_BYTES}
    drafted = ledger.view.stored()
    assert (drafted.oldest("host"), drafted.count("host")) == ("b", 2)
    drafted.take_out("host", "b")
    assert drafted.oldest("host") == "a"
    drafted.put("host", ledger.view.named("b"))
    drafted.take_out("host", "a")
    assert (drafted.oldest("host"), drafted.count("host")) == ("b", 1)
    assert list(ledger.stored.copies["host"]) == ["b", "a"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host_bytes": -1}, r"host_bytes is an integer of at least 0 and at most 1,152,921,504,606,846,976, got -1"),
        ({"disk_bytes": 2**60 + 1}, "disk_bytes is an integer of at least 0"),
        ({"remote_bytes": 1e9 + 0.5}, "remote_bytes is an integer of at least 0"),
        ({"host_bytes": 512, "prefix_caching": False}, "host_bytes keeps named blocks, and prefix_caching is false"),
        ({"tier_writes": "trough"}, "tier_writes.*'trough'.*through"),
        ({"tier_loads": "costs"}, "tier_loads.*'costs'.*cost"),
        ({"prefetch": 1}, "prefetch is True or False, got 1"),
        (
            {"prefetch": True, "host_bytes": 512},
            r"from others, and there are \['host'\]: set two of host_bytes, disk_byt",
        ),
    ],
)
def test_parameters_out_of_their_range_are_told_when_they_are_made(options, message):
    with pytest.raises(ValueError, match=message):
        Paged(block_size=BLOCK, pool_tokens=32, **{"prefix_caching": True} | options)


def test_a_size_may_be_a_float_that_is_whole():
    made = Paged(host_bytes=1e9)
    assert made == Paged(host_bytes=10**9)
    assert type(made.host_bytes) is int
    assert type(said_budget({"budget_bytes": 2e9})) is int
    with pytest.raises(ValueError, match="budget_bytes is a positive integer, got inf"):
        said_budget({"budget_bytes": float("inf")})


def test_what_only_a_run_knows_is_told_when_it_is_composed():
    made = Paged(block_size=BLOCK, pool_tokens=32, prefix_caching=True, host_bytes=BLOCK_BYTES - 1)
    with pytest.raises(ValueError, match=r"host_bytes is 0, or at least a block's 256; got 255"):
        made.fitted(LIMITS)
    made = replace(made, host_bytes=0, disk_bytes=10**6)
    with pytest.raises(ValueError, match=r"disk_bytes: tiers .* and Windowed has .*: set window_blocks to keep, or"):
        made.fitted(replace(LIMITS, geometry=WINDOWED))
    made = Paged(block_size=BLOCK, pool_tokens=32, host_bytes=10**6)  # caches as the engine does, and there is none
    assert made.fitted(LIMITS).tier_bytes == {}
    with pytest.raises(ValueError, match="host_bytes keeps blocks that have names, and nobody names any here"):
        made.fitted_to_serve(LIMITS)
    with pytest.raises(ValueError, match="blocks that leave the fast tier have no names; set host_bytes to 0"):
        Chain(parts=(made, Hierarchical()))


def test_capacity_says_what_a_tier_holds_by_the_dtype_and_the_ranks():
    made = Paged(host_bytes=10**9, remote_bytes=10**12)
    fit = capacity("llama3_8b", hardware="h100", strategies={"it": made})
    # 32 layers, K and V, 8 heads of 128, 2 bytes: 131,072 bytes a token, 2 MiB a block of 16.
    assert fit.tiers == {"it": {"host": (476, 476 * 16), "remote": (476_837, 476_837 * 16)}}
    assert "below the device it keeps on host 476 blocks, 7,616 tokens; on remote 476,837 blocks" in fit.text
    assert fit.as_dict()["tiers"]["it"]["host"] == {"num_blocks": 476, "num_tokens": 7_616}
    narrow = capacity(
        "llama3_8b",
        hardware="h100",
        strategies={"it": made},
        parallel={"tensor": 2, "data": 2},
        settings={"model.kv_dtype": "fp8_e4m3"},
    )
    assert narrow.tiers["it"]["host"] == (2 * 1_907, 2 * 1_907 * 16)
    assert (
        capacity(
            "llama3_8b", hardware="h100", strategies={"it": replace(made, prefix_caching=None)}, engine="ideal"
        ).tiers
        == {}
    )


def test_backends_refuse_what_they_do_not_carry_out():
    with pytest.raises(ValueError, match=r"it: Round states no hardware\.disk_s, which disk_bytes needs"):
        served(AGAIN, modelled(hardware=machine()), disk_bytes=10**6)
    measured = Measured().made(Conditions(geometry=GEOMETRY, device="cpu"))
    with pytest.raises(ValueError, match="it: host_bytes: backend measured keeps no copies of blocks below the device"):
        served(AGAIN, measured, host_bytes=10**6)


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"remote_bytes_per_s": 0}, r"hardware\.remote_bytes_per_s is a number above 0, got 0"),
        ({"remote_s": -1.0}, r"hardware\.remote_s is a number of at least 0, got -1.0"),
        ({"disk_s": "soon"}, r"hardware\.disk_s is a number of at least 0, got 'soon'"),
        ({"remote_spread": 6}, r"hardware\.remote_spread is a number of at least 0 and at most 5.0, got 6"),
    ],
)
def test_machines_refuse_links_that_cannot_be(figures, message):
    with pytest.raises(ValueError, match=message):
        machine(**figures)
