"""The probe: attention under a strategy against exact attention, by hand where it can be."""

import math
from dataclasses import replace

import pytest
import torch

from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import LayerGroup, StateTensor
from kvbench.quality.compare import check, compare
from kvbench.quality.probe import MAX_DECODES, Probe, asked_decodes, request_to_probe
from kvbench.quality.sample import Sample
from kvbench.quality.structured import Structure, structured
from kvbench.workload.request import Request, Session
from tests.support.catalogue import STRATEGIES, strategy

SMALL = KVGeometry.uniform(num_layers=1, num_heads=4, num_kv_heads=2, head_dim=32, dtype="float32")
CHAT = Session(0, (Request(60, 20), Request(40, 10)))
PAPER = Session(0, (Request(100), Request(100)))
LOSSLESS = [name for name in STRATEGIES if strategy(name).lossless]


def probed(chosen, request=PAPER, geometry=SMALL, seed=0, structure=None):
    sample = structured(geometry, request.num_tokens, seed, structure or Structure())
    return Probe(request, sample, geometry, "cpu")(chosen)


def test_two_tokens_by_hand():
    """Token 1 looks at token 0 with weight 1/4 and at itself with 3/4; a window of one token reads itself alone."""
    one = KVGeometry.uniform(num_layers=1, num_heads=1, num_kv_heads=1, head_dim=4, dtype="float32")
    keys, values, queries = (torch.zeros(1, 1, 2, 4) for _ in range(3))
    keys[0, 0, 1, 0] = 2 * math.log(3)  # the query's 1 times this over sqrt(4) is log 3
    queries[..., 0] = 1
    values[0, 0, 0, 0] = values[0, 0, 1, 1] = 4
    probe = Probe(Session(0, (Request(1, 2),)), Sample(keys, values, queries, (), "by hand"), one, "cpu")
    assert probe.exact.at(1).weights.flatten().tolist() == pytest.approx([0.25, 0.75])
    found = probe(strategy("sinks", num_sinks=0, window=1))
    # Asked are token 0 after its append (nothing is lost) and token 1 in its decode step: (0, 4) for (1, 3).
    assert found.num_queries == 2
    assert found.num_altered == 1
    assert found.mass_kept == pytest.approx((1 + 0.75) / 2)
    assert found.error_relative == pytest.approx((0 + math.sqrt(2 / 10)) / 2, abs=1e-6)
    assert found.cosine == pytest.approx((1 + 12 / (4 * math.sqrt(10))) / 2)
    assert found.needle_recall == {}


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_strategy_loses_nothing(name):
    small = {"pool_tokens": 256} if name == "paged" else {}
    found = probed(strategy(name, **small), CHAT)
    assert found.error_relative < 1e-5
    assert found.cosine == pytest.approx(1, abs=1e-6)
    assert found.mass_kept == pytest.approx(1, abs=1e-5)
    assert set(found.needle_recall.values()) == {1.0}
    # 28 decode steps, the second append's last token, and both appends' last tokens once more.
    assert found.num_queries == 31
    assert found.num_altered == 0


def test_sinks_lose_a_needle_in_the_middle_and_keep_those_at_both_ends():
    structure = Structure(depths=(0.0, 0.5, 0.98))
    found = probed(strategy("sinks", num_sinks=8, window=40), structure=structure)
    assert found.needle_recall == {0.0: 1.0, 0.5: 0.0, 0.98: 1.0}
    assert found.num_altered == 200 - 48
    assert found.mass_kept < 0.99


def test_a_window_without_sinks_errs_more_than_one_with_them():
    with_sinks, without = (probed(strategy("sinks", num_sinks=n, window=48 - n)) for n in (4, 0))
    assert without.error_relative > 2 * with_sinks.error_relative
    assert without.mass_kept < with_sinks.mass_kept - 0.05


def test_fewer_bits_err_more_and_evict_nothing():
    few = {"residual_tokens": 16, "group_size": 16}
    int8, int4, int2 = (probed(strategy(name, **few)) for name in ("int8", "int4", "int2"))
    assert int8.error_relative > 1e-5
    assert 2 * int8.error_relative < int4.error_relative
    assert 2 * int4.error_relative < int2.error_relative
    for found in (int8, int4, int2):
        assert found.mass_kept == pytest.approx(1, abs=1e-5)
        # Of the first 100 tokens groups of 16 leave 16 or more: 80. Then 116 of 120 beyond them: 184 in all.
        assert found.num_altered == 176


def test_heavy_channels_want_a_scale_a_channel():
    few = {"residual_tokens": 16, "group_size": 16}
    by_channel, by_token = (probed(strategy(name, **few)) for name in ("int2", "int2_naive"))
    assert by_token.error_relative > 3 * by_channel.error_relative


def test_what_is_asked_without_appending_leaves_no_trace():
    """Each query hands out a mass of 1: 200 tokens of two query heads a KV head make 400, whoever else was asked."""
    found = []
    chosen = strategy("heavy_hitters", num_heavy=150, num_recent=50)
    probe = Probe(PAPER, structured(SMALL, 200, 0), SMALL, "cpu")
    finish = chosen.on_finish

    def on_finish(seq, view):
        store = probe.backend.sequence(seq).stores["main"]
        found.append(store.scores[0][:, :, : store.num_used].sum(dim=2))
        return finish(seq, view)

    object.__setattr__(chosen, "on_finish", on_finish)
    assert probe(chosen).num_queries == 3
    assert found[0].flatten().tolist() == pytest.approx([400, 400], rel=1e-4)


def test_a_strategy_that_reads_part_of_a_long_append_is_asked_at_its_end():
    found = probed(strategy("streaming", window_size=64, overlap_size=8, max_retired=4))
    assert found.num_queries == 3
    assert found.needle_recall[0.1] == 0
    assert found.needle_recall[0.9] == 1


def test_a_request_that_is_too_long_has_no_quality():
    assert probed(strategy("static", max_seq_len=150)) is None
    found = compare(
        {"static": strategy("static", max_seq_len=150), "exact": strategy("exact")},
        [PAPER],
        geometry=SMALL,
        device="cpu",
        seed=0,
        max_tokens=4096,
        data=None,
    )
    assert found.columns("static") == {"probed_tokens": 200}
    assert found.columns("exact")["needle_recall"] == 1
    assert {row["strategy"] for row in found.by_depth()} == {"exact"}
    assert len(found.by_depth()) == 5


def probe_of(geometry):
    sessions = [Session(0, (Request(300, 20),))]
    options = {"device": "cpu", "seed": 0, "max_tokens": 400, "data": None}
    return compare({name: strategy(name) for name in ("int4", "snapkv")}, sessions, geometry=geometry, **options)


def test_of_a_model_with_windows_the_layers_are_probed_that_see_all_tokens():
    sizes = {"key_dim": 16, "value_dim": 16, "dtype": "float32", "num_heads": 4, "num_kv_heads": 2}
    full = LayerGroup(kind="full", layers=(1, 3), **sizes)
    window = LayerGroup(kind="window", layers=(0, 2), tokens=32, **sizes)
    state = LayerGroup(
        kind="state", layers=(4,), state=(StateTensor(name="recurrent", rows=4, columns=6, dtype="float32"),)
    )
    whole, alone = (
        KVGeometry(groups=groups, dtype="float32")
        for groups in ((full, window, state), (replace(full, layers=(0, 1)),))
    )
    found, wanted = probe_of(whole), probe_of(alone)
    assert found.found == wanted.found
    assert found.found["int4"].error_relative > 0
    assert found.data == f"{wanted.data}, in layers that see all tokens"
    check(whole, 400, None)
    latent = replace(full, kind="latent", num_kv_heads=1)
    for groups in ((window,), (latent, window)):
        with pytest.raises(ValueError, match="the probe holds K and V of layers that see all tokens, alike, and"):
            check(KVGeometry(groups=groups, dtype="float32"), 400, None)


def test_half_precision_is_held_against_its_own_values():
    half = KVGeometry.uniform(num_layers=1, num_heads=4, num_kv_heads=2, head_dim=32, dtype="bfloat16")
    found = probed(strategy("dynamic"), CHAT, half)
    assert 1e-5 < found.error_relative < 0.02
    assert set(found.needle_recall.values()) == {1.0}


def test_every_layer_is_probed():
    sample = structured(SMALL, 200, 0)
    twice = Sample(
        *(torch.cat([tensor, 2 * tensor]) for tensor in (sample.keys, sample.values, sample.queries)), (), "two layers"
    )
    chosen = strategy("sinks", num_sinks=4, window=44)
    alone = probed(chosen)
    both = Probe(PAPER, twice, SMALL, "cpu")(chosen)
    assert both.num_queries == 2 * alone.num_queries
    assert both.mass_kept > alone.mass_kept  # four times the logits: attention is sharper, on what is kept


def test_the_longest_request_that_fits_is_probed_or_the_longest_is_cut():
    requests = [
        Session(0, (Request(10, 5),)),
        Session(0, (Request(30, 9), Request(4, 3))),
        Session(0, (Request(39, 1),)),
    ]
    assert request_to_probe(requests, 60).turns == requests[1].turns
    assert request_to_probe(requests, 44).turns == requests[2].turns
    assert request_to_probe(requests[1:2], 41).turns == (Request(30, 9), Request(2, 1))
    assert request_to_probe(requests[1:2], 35).turns == (Request(30, 6),)
    assert [request_to_probe(requests[1:2], most).num_tokens for most in (1, 30, 38, 40, 44)] == [1, 30, 38, 40, 44]


def test_decode_steps_that_are_asked_are_spread_evenly():
    assert asked_decodes(CHAT) == {*range(60, 79), *range(120, 129)}
    many = asked_decodes(Session(0, (Request(7, 641),)))
    assert len(many) == MAX_DECODES
    assert sorted(many) == list(range(7 + 5, 647, 10))
    assert asked_decodes(PAPER) == set()
