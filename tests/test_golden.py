"""Every strategy on one of the article's lists, computed by hand: capacities, resizes, bytes copied."""

import pytest

from kvbench.ledger import Ledger
from kvbench.model.geometry import KVGeometry
from kvbench.plan.ops import Reserve
from kvbench.strategy.base import CapacityExceeded
from kvbench.strategy.chunked import Chunked
from kvbench.strategy.concat import Concat
from kvbench.strategy.dynamic import Dynamic, grown_capacity
from kvbench.strategy.exact import Exact
from kvbench.strategy.power_of_two import PowerOfTwo, over_provisioned
from kvbench.strategy.predictive import Predictive, predicted_append
from kvbench.strategy.recompute import Recompute
from kvbench.strategy.static import Static
from kvbench.workload.request import Request, Session

ARTICLE = KVGeometry.uniform(num_layers=1, num_heads=32, num_kv_heads=32, head_dim=128, dtype="float32")
TOKEN = 32 * 1024
SHORT_CHAT = (50, 100, 150, 200, 250, 300)


def trace(strategy, appends):
    """Capacities in order (as reserved), and the ledger's sums."""
    ledger = Ledger(ARTICLE, areas=strategy.areas)
    request = Session(0, tuple(Request(count) for count in appends))
    ledger.open(0)
    capacities, sums = [], {"resizes": 0, "copied": 0, "requested": 0, "peak": 0}

    def book(plan):
        capacities.extend(op.num_tokens for op in plan if isinstance(op, Reserve))
        receipt = ledger.book(plan)
        if receipt:
            sums["resizes"] += receipt.num_resizes
            sums["copied"] += receipt.copied_bytes // TOKEN
            sums["requested"] += receipt.requested_bytes // TOKEN
            sums["peak"] = max(sums["peak"], receipt.peak_bytes)

    book(strategy.on_admit(0, request, ledger.view))
    held = 0
    for count in appends:
        book(strategy.on_append(0, count + (held if strategy.recomputes else 0), ledger.view))
        book(strategy.on_attended(0, count, ledger.view))
        held += count
    sums["allocated"] = ledger.allocated_bytes // TOKEN
    sums["used"] = ledger.used_bytes // TOKEN
    return capacities, sums


def growing(kind=Dynamic, initial=256, **more):
    return kind(initial_capacity=initial, growth_factor=1.5, max_capacity=8192, round_to=1, **more)


def test_dynamic_on_short_chat():
    # Held: 50 150 300 500 750 1050. 300 > 256: 384, copying 150. 500 > 384: 576, copying 300. 750 > 576: 864,
    # copying 500. 1050 > 864: 1296, copying 750. Tensor by tensor, half of the old buffer is held twice at the peak.
    capacities, sums = trace(growing(), SHORT_CHAT)
    assert capacities == [256, 384, 576, 864, 1296]
    assert sums == {
        "resizes": 4,
        "copied": 150 + 300 + 500 + 750,
        "requested": 256 + 384 + 576 + 864 + 1296,
        "peak": (1296 + 864 // 2) * TOKEN,
        "allocated": 1296,
        "used": 1050,
    }


def test_static_on_short_chat():
    capacities, sums = trace(Static(max_seq_len=8192), SHORT_CHAT)
    assert capacities == [8192]
    assert sums == {"resizes": 0, "copied": 0, "requested": 8192, "peak": 2**28, "allocated": 8192, "used": 1050}


@pytest.mark.parametrize(("num_tokens", "waste"), [(512, 93.8), (1024, 87.5), (2048, 75.0), (4096, 50.0)])
def test_static_wastes_what_the_articles_table_says(num_tokens, waste):
    _, sums = trace(Static(max_seq_len=8192), (num_tokens,))
    assert round(100 * (1 - sums["used"] / sums["allocated"]), 1) == waste


def test_concat_on_short_chat():
    # Every append but the first copies all that is held: 50 + 150 + 300 + 500 + 750.
    capacities, sums = trace(Concat(), SHORT_CHAT)
    assert capacities == [50, 150, 300, 500, 750, 1050]
    assert sums == {
        "resizes": 5,
        "copied": 1750,
        "requested": 50 + 150 + 300 + 500 + 750 + 1050,
        "peak": (1050 + 750 // 2) * TOKEN,
        "allocated": 1050,
        "used": 1050,
    }


def test_chunked_on_short_chat():
    # Chunks of 256: one for 50 and 150, two for 300 and 500, three for 750, five for 1050. Nothing is copied.
    capacities, sums = trace(Chunked(chunk_tokens=256), SHORT_CHAT)
    assert capacities == [256, 512, 768, 1280]
    assert sums == {"resizes": 0, "copied": 0, "requested": 1280, "peak": 1280 * TOKEN, "allocated": 1280, "used": 1050}


def test_power_of_two_reserves_the_prompt_and_the_next_power_of_two():
    # The paper's own example: an output of 25 tokens gets 32 positions. An answer of none gets no room.
    assert [over_provisioned(10, output, 2048) for output in (0, 1, 2, 3, 25, 32, 33)] == [10, 11, 12, 14, 42, 42, 74]
    assert over_provisioned(2000, 40, 2048) == 2048
    ledger, strategy = Ledger(ARTICLE), PowerOfTwo(max_seq_len=64)
    ledger.open(0)
    ledger.book(strategy.on_admit(0, Session(0, (Request(10, 25),)), ledger.view))
    assert ledger.view.capacity(0) == 42
    ledger.book(strategy.on_append(0, 35, ledger.view))
    with pytest.raises(CapacityExceeded):
        strategy.on_append(0, 30, ledger.view)


def test_exact_on_short_chat():
    capacities, sums = trace(Exact(round_to=1), SHORT_CHAT)
    assert capacities == [1050]
    assert sums["resizes"] == sums["copied"] == 0
    assert trace(Exact(round_to=64), SHORT_CHAT)[0] == [1088]


def test_the_articles_predictive_rule_on_short_chat():
    # From 200 slots. 100: ratio 2, 100·2·1.1 = 220 > 200: max(220, 260, 300) = 300, copying 50. 150: ratios 2, 1.5
    # with variance 0.0625: 288, no; 300 fits. 200: mean 1.611, variance 0.080: 354 > 300: max(354, 390, 450) = 450,
    # and 500 does not fit: 675; both copy 300. 250: 418, no; 750 > 675: 1012, copying 500. 300: 480, no; 1050: 1518,
    # copying 750.
    capacities, sums = trace(growing(Predictive, 200, history_window=10, rule="append"), SHORT_CHAT)
    assert capacities == [200, 300, 450, 675, 1012, 1518]
    assert sums["resizes"] == 5
    assert sums["copied"] == 50 + 300 + 300 + 500 + 750


def test_the_total_rule_on_short_chat():
    # From 200 slots. 300 > 200, predicted next 288: max(300, 588), copying 150; 500 fits. 750 > 588, predicted next
    # 418: max(882, 1168), copying 500; 1050 fits. Dynamic from 200 resizes four times: 300, 500, 750, 1125.
    capacities, sums = trace(growing(Predictive, 200, history_window=10, rule="total"), SHORT_CHAT)
    assert capacities == [200, 588, 1168]
    assert sums["resizes"] == 2
    assert sums["copied"] == 150 + 500
    assert trace(growing(initial=200), SHORT_CHAT)[0] == [200, 300, 500, 750, 1125]


def test_predicted_append():
    assert predicted_append((70,), 30) == 130  # one observation: the length held plus 100
    assert predicted_append((100, 200), 0) == 440  # ratio 2, trusted: 200 · 2 · 1.1
    # Ratios 2, 0.5, 2: mean 1.5, variance 0.5, so at most 1.2: 400 · 1.2 · 1.1.
    assert predicted_append((200, 400, 200, 400), 0) == 528


def test_recompute_holds_nothing_between_steps():
    capacities, sums = trace(Recompute(), (50, 100))
    assert capacities == [50, 0, 150, 0]
    assert sums["resizes"] == sums["copied"] == sums["allocated"] == sums["used"] == 0
    assert sums["requested"] == 200


@pytest.mark.parametrize(
    ("strategy", "appends", "needed", "maximum"),
    [
        (Static(max_seq_len=4000), (200, 1800, 300, 1500, 600), 4400, 4000),
        (growing(), (1000, 1500, 2000, 2500, 3000), 10_000, 8192),
        (growing(Predictive, history_window=10, rule="total"), (8000, 200), 8200, 8192),
        (growing(Predictive, history_window=10, rule="append"), (8000, 200), 8200, 8192),
    ],
)
def test_what_is_too_long(strategy, appends, needed, maximum):
    with pytest.raises(CapacityExceeded) as caught:
        trace(strategy, appends)
    assert (caught.value.num_tokens, caught.value.maximum) == (needed, maximum)


def test_grown_capacity():
    assert grown_capacity(512, 513, 1.5, 1, 8192) == 768
    assert grown_capacity(512, 2000, 1.5, 1, 8192) == 2000  # at least what is required
    assert grown_capacity(8000, 8001, 1.5, 1, 8192) == 8192  # at most the maximum
    assert grown_capacity(100, 101, 1.1, 64, 8192) == 128  # a multiple of 64
    assert grown_capacity(3, 4, 1.01, 1, 10) == 4
