"""A strategy within a budget: what attention reads in the long run, and what a budget cannot be."""

import pytest
import torch

from kvbench.workload.request import Request, Session
from tests.support.catalogue import STRATEGIES, strategy
from tests.support.driven import Cache, tokens

BOUNDED = {"sinks": 205, "heavy_hitters": 205, "streaming": 205, "sinks_int4": 205, "compressed": 205, "snapkv": 205}
TOTAL = 320
INTERVAL = 64


def attended(chosen, counts):
    """Tokens that attention reads after each append."""
    generator, cache = torch.Generator().manual_seed(0), Cache(chosen, attend=bool(chosen.signals))
    cache.admit(Session(0, (Request(sum(counts)),)))
    seen = []
    for count in counts:
        cache.append(tokens(generator, 1, count), tokens(generator, 1, count))
        seen.append(cache.view.num_attended(0))
    cache.finish()
    return seen


@pytest.mark.parametrize("name", ["sinks", "heavy_hitters", "streaming", "sinks_int4"])
@pytest.mark.parametrize("counts", [[1] * TOTAL, [250] + [1] * (TOTAL - 250)])
def test_attention_reads_no_more_than_the_budget(name, counts):
    seen = attended(strategy(name).within(205, TOTAL), counts)
    assert max(seen) <= 205
    # Of the long append, streaming's window keeps what came after it was last full; packed groups come and go whole.
    assert max(seen) >= {"streaming": 140, "sinks_int4": 196}.get(name, 205)


def test_compressed_holds_an_interval_more_between_passes():
    # 60 of 300: after a pass over t tokens, every 64, a fifth is left, rounded up; then single tokens stay.
    chosen = strategy("compressed").within(60, 300)
    seen = attended(chosen, [1] * 300)
    assert chosen.interval == INTERVAL
    assert seen[255] == 52
    assert seen[-1] == 52 + 44
    assert max(seen) <= 60 + INTERVAL
    assert attended(chosen, [300]) == [60]


@pytest.mark.parametrize(("budget", "total"), [(7, 25), (21, 38), (205, 1000), (300, 200)])
def test_compressed_keeps_no_token_over_the_budget(budget, total):
    chosen = strategy("compressed").within(budget, total)
    assert attended(chosen, [total]) == [min(budget, total)]


def test_snapkv_reduces_prompts_and_keeps_what_is_decoded():
    seen = attended(strategy("snapkv").within(205, TOTAL), [250] + [1] * 10)
    assert seen == [205 + decoded for decoded in range(11)]
    assert attended(strategy("snapkv").within(205, TOTAL), [1] * 250)[-1] == 250  # no prompt, nothing to reduce


def test_other_parameters_stay_or_keep_their_proportion():
    sinks, heavy = strategy("sinks").within(205, TOTAL), strategy("heavy_hitters").within(205, TOTAL)
    assert (sinks.num_sinks, sinks.window) == (4, 201)
    assert (heavy.capacity, heavy.areas[0].score is not None) == (205, True)
    snapkv, streaming = strategy("snapkv").within(205, TOTAL), strategy("streaming").within(205, TOTAL)
    assert (snapkv.budget, snapkv.window, snapkv.kernel_size, snapkv.pooling) == (205, 32, 7, "max")
    assert strategy("snapkv", pooling="avg").within(205, TOTAL).pooling == "avg"
    assert (streaming.window_size, streaming.overlap_size, streaming.max_retired) == (205, 25, 10)  # 128 of 1,024
    assert strategy("compressed").within(205, 1024).interval == INTERVAL


def test_others_have_no_budget():
    assert {name for name in STRATEGIES if strategy(name).within(205, TOTAL) is not None} == set(BOUNDED)


@pytest.mark.parametrize(
    ("name", "budget", "message"),
    [
        ("sinks", 4, "sinks: its budget in tokens is an integer of at least 5, got 4"),
        ("snapkv", 32, "snapkv: its budget in tokens is an integer of at least 33, got 32"),
        ("heavy_hitters", 0, "heavy_hitters: its budget in tokens is a positive integer, got 0"),
        ("compressed", 0, "compressed: .*, got 0"),
        ("streaming", 0, "streaming: .*, got 0"),
        ("sinks", 20.5, "sinks: .*, got 20.5"),
        ("sinks_int4", 100, "the window of sinks is at least 192 .*, got 96"),
    ],
)
def test_a_budget_that_is_too_small_is_refused(name, budget, message):
    with pytest.raises(ValueError, match=message):
        strategy(name).within(budget, TOTAL)
