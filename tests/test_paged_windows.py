"""Blocks that have left every window go back to the pool: by hand, token by token, and in a run of gpt-oss-20b."""

import pytest
import torch

from kvbench.backend.choice import Conditions
from kvbench.backend.measured import Measured
from kvbench.ledger import Ledger, LedgerError, Limits
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import CHUNKED, FULL, WINDOW, LayerGroup
from kvbench.plan.area import Area, Blocks
from kvbench.plan.ops import Append, Fork, Keep, Release, Reserve, Rule, Truncate
from kvbench.runner.run import run
from kvbench.strategy.paged import Paged
from kvbench.workload.request import Request, Session
from tests.support.driven import Cache

MIB = 1 << 20


def group(kind, layers, tokens=None, num_kv_heads=8, head_dim=64):
    sizes = {"num_heads": num_kv_heads, "num_kv_heads": num_kv_heads, "key_dim": head_dim, "value_dim": head_dim}
    return LayerGroup(kind=kind, layers=tuple(layers), tokens=tokens, dtype="bfloat16", **sizes)


GPT_OSS = KVGeometry(
    groups=(group(FULL, range(1, 24, 2)), group(WINDOW, range(0, 24, 2), 128)), dtype="bfloat16", name="gpt-oss-20b"
)
"""24 layers of 8 KV heads of 64: 2,048 bytes a token and layer."""


def driven(strategy, geometry, prompts, num_decode):
    """What sequences hold at the end, and the most of it after any step, without staging buffers: bytes."""
    strategy = strategy.fitted(Limits(geometry=geometry, budget_bytes=None, live_tokens=tuple(prompts)))
    ledger, most = strategy.ledger(geometry), 0
    for seq, num_tokens in enumerate(prompts):
        ledger.open(seq)
        ledger.book(strategy.on_admit(seq, None, ledger.view))
        ledger.book(strategy.on_append(seq, num_tokens - num_decode, ledger.view))
    for _ in range(num_decode):
        for seq in range(len(prompts)):
            ledger.book(strategy.on_append(seq, 1, ledger.view))
            most = max(most, ledger.lent_bytes)
    return ledger.lent_bytes, most, sum(ledger.pool_bytes.values())


def test_gpt_oss_of_32_sequences_by_hand():
    """Full layers 32 x 12 x 8,192 x 2,048 bytes: 6,144 MiB. Windows 128 tokens, 96 MiB; in 9 blocks of 16 108 MiB."""
    held, most, pool = driven(Paged(), GPT_OSS, [8192] * 32, 40)
    assert held == (6144 + 96) * MIB
    assert most <= (6144 + 108) * MIB
    assert pool == (6144 + 108) * MIB
    held, _, pool = driven(Paged(window_blocks="keep"), GPT_OSS, [8192] * 32, 40)
    assert held == pool == 2 * 6144 * MIB


@pytest.mark.parametrize("longest", [1_000, 1_000_000])
def test_a_pool_of_all_the_budget_leaves_room_for_what_passes_through(longest):
    """A layer's 1,000 tokens take 2,048,000 bytes; a million fit nowhere, and take a 13th: 12 full layers and one."""
    budget_bytes, staged = 100 * MIB, 1024 * 2048
    known = Limits(geometry=GPT_OSS, budget_bytes=budget_bytes, live_tokens=(longest, 10), is_modelled=True)
    strategy = Paged().fitted(known)
    ledger, left = strategy.ledger(GPT_OSS, budget_bytes), budget_bytes - staged
    block = 16 * 24 * 2048
    assert sum(ledger.pool_bytes.values()) == (left - min(longest * 2048, left // 13)) // block * block
    ledger.open(0)
    ledger.book(strategy.on_admit(0, None, ledger.view))
    ledger.book(strategy.on_append(0, 1_000, ledger.view))
    assert ledger.accounts[0].holdings["main"].num_used == 1_000


@pytest.mark.parametrize("kind", [WINDOW, CHUNKED])
@pytest.mark.parametrize("steps", [[1] * 60, [7] * 9, [40, 1, 1, 1, 20, 1, 1]])
def test_each_token_takes_and_gives_back_the_blocks_that_it_should(kind, steps):
    """Blocks of 4, a window of 10; those are held that have a token which the newest one looks at."""
    geometry = KVGeometry(groups=(group(FULL, (0, 2)), group(kind, (1, 3, 4), 10)), dtype="bfloat16")
    ledger, strategy, seen = Ledger(geometry, areas=(Area(layout=Blocks(4, 400, True)),)), Paged(block_size=4), 0
    ledger.open(0)
    ledger.book((Reserve(0, 0),))
    for count in steps:
        receipt = ledger.book(strategy.on_append(0, count, ledger.view))
        seen += count
        first = (seen - 1) // 10 * 10 if kind == CHUNKED else max(seen - 10, 0)
        blocks = {position // 4 for position in range(first, seen)}
        full = -(-seen // 4)
        assert ledger.lent_bytes == ledger.pooled_bytes["main"] == 4 * 2048 * (2 * full + 3 * len(blocks))
        window = min(seen, 10)
        assert ledger.used_bytes == 2048 * (2 * seen + 3 * window)
        account = ledger.accounts[0]
        assert account.holdings["main"].num_bytes == sum(account.by_group.values()) == ledger.lent_bytes
        if count > 10:  # a layer's new tokens pass through
            assert receipt.peak_bytes >= ledger.lent_bytes + count * 2048
    ledger.book((Release(0),))
    assert ledger.lent_bytes == ledger.used_bytes == 0


def test_what_freed_blocks_cannot_give_is_refused():
    ledger = Ledger(GPT_OSS, areas=(Area(layout=Blocks(16, 1600, True)),))
    for seq in (0, 1):
        ledger.open(seq)
    ledger.book((Reserve(0, 320), Append(0, 320)))
    with pytest.raises(LedgerError, match="have given back what another sequence would read"):
        ledger.book((Fork(0, 1, 320),))
    with pytest.raises(LedgerError, match="give back what it has left, and no others evict then"):
        ledger.book((Keep(0, Rule(recent=16)),))
    with pytest.raises(LedgerError, match="layers with a sliding window hold the last 128 of 320 tokens"):
        ledger.book((Truncate(0, 1),))
    assert Paged().on_fork(1, 0, 320, ledger.view) == ()
    with pytest.raises(ValueError, match="window_blocks"):
        Paged(window_blocks="fre")


@pytest.mark.parametrize("kind", [WINDOW, CHUNKED])
def test_tensors_give_back_the_blocks_that_the_books_say(kind):
    """Two sequences take and give back blocks of one pool, in which a block is two layers' of any of two groups."""
    geometry = KVGeometry(groups=(group(FULL, (0, 3)), group(kind, (1, 2, 4, 5), 10)), dtype="bfloat16")
    cache = Cache(Paged(block_size=4, pool_tokens=80), geometry=geometry, attend=False)
    for seq in (0, 1):
        cache.admit(Session(0, (Request(60),)), seq)
    (pool,) = {id(areas._pools["main"]): areas._pools["main"] for areas in cache.backend._areas.areas}.values()
    assert len(pool.keys) == 2
    assert pool.num_free == 3 * 20
    for count in (5, 1, 6, 1, 1, 17, 1, 1, 1, 3):
        for seq in (0, 1):
            new = [torch.zeros(1, 8, count, 64, dtype=torch.bfloat16) for _ in range(6)]
            cache.append(new, new, seq)
            cache.sequence(seq).land()
            assert (3 * 20 - pool.num_free) * 2 * 4 * 2048 == cache.ledger.lent_bytes
    cache.finish(0)
    assert (3 * 20 - pool.num_free) * 2 * 4 * 2048 == cache.ledger.lent_bytes
    del pool
    cache.finish(1)


def test_layers_of_different_bytes_share_no_pool_on_tensors():
    narrow = KVGeometry(groups=(group(FULL, (0,)), group(WINDOW, (1,), 9, head_dim=32)), dtype="bfloat16")
    chosen = Paged(block_size=4, pool_tokens=80)
    backend = Measured().made(Conditions(geometry=narrow, device="cpu"))
    with pytest.raises(
        ValueError, match="are of layers that hold K and V alike: window_blocks is keep, or windows are"
    ):
        backend.begin_repetition(chosen.areas)
    cache = Cache(chosen, geometry=narrow)  # which tells what a run does
    assert [(area.name, area.layers) for area in cache.strategy.areas] == [
        ("main", ("full",)),
        ("windows", ("window",)),
    ]
    assert cache.ledger.pool_bytes == {"main": 80 * narrow.groups[0].token_bytes}
    recorder = run(
        {"paged": Paged(block_size=4)},
        [Session(0, (Request(30, 5), Request(40, 3)))] * 2,
        backend,
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=2,
        budget_bytes=2**22,
    )
    assert {row.outcome for row in recorder.requests} == {"completed"}
