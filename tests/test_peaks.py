"""Peaks: what rows say is what was booked, and what was booked is no less than what torch held."""

import pytest
import torch

from kvbench.ledger import Ledger
from kvbench.plan.area import Area, Chunks, Holes, Mass
from kvbench.plan.ops import Append, Move, Reserve
from kvbench.runner.frames import steps_frame
from kvbench.runner.run import run
from kvbench.strategy import base
from kvbench.workload.request import Request, Session
from tests.support.catalogue import STRATEGIES, TINY
from tests.support.driven import Cache, tokens
from tests.support.fake import Fake
from tests.test_contract import small
from tests.test_storage_models import Given

HOLDING = [name for name in STRATEGIES if not small(name).recomputes]
APPENDS = (50, 1, 1, 90, 1, 1, 1, 30, 3, 1, 1, 80, *[1] * 20)


@pytest.mark.parametrize("name", HOLDING)
def test_no_more_is_live_than_was_booked(name):
    """Ranking and rounding take scratch memory that is not booked: at most a layer's share of what is held.

    Ranking makes indices of 8 bytes and scores of 4, rounding a copy in float32, for one layer at a time.
    """
    chosen, num_rows = small(name), 2
    cache = Cache(chosen, num_rows, attend=bool(chosen.signals))
    generator = torch.Generator().manual_seed(0)
    cache.admit(Session(0, (Request(sum(APPENDS)),)))
    for count in APPENDS:
        cache.append(tokens(generator, num_rows, count), tokens(generator, num_rows, count))
    makes_scratch = any(area.positions or (area.alters and area.attended) for area in chosen.areas)
    most = max(APPENDS) * 2 * num_rows * TINY.bytes_per_token // TINY.num_layers if makes_scratch else 0
    assert 0 <= cache.scratch_bytes <= most
    cache.finish()


def test_what_leaves_slots_without_order_is_gathered_first():
    # 16 slots of K, V, position and score, 16 of K, V and position; and the 16 that leave, once more.
    chosen = Given(Area(layout=Holes(), positions=True, score=Mass()))
    chosen.areas = (Area("old", Chunks(8), positions=True), *chosen.areas)
    cache = Cache(chosen)
    cache.ledger.open(0)
    cache.backend.open(0)
    generator = torch.Generator().manual_seed(0)
    cache.carry_out((Reserve(0, 16), Append(0, 16)), tokens(generator, 1, 16), tokens(generator, 1, 16))
    receipt = cache.carry_out((Reserve(0, 16, "old"), Move(0, "main", "old")))
    token, track = TINY.bytes_per_token, TINY.track_bytes_per_token
    assert receipt.peak_bytes == 16 * (2 * (token + 2 * track) + token + track)
    assert cache.view.num_used(0, "old") == 16


class Spied(Ledger):
    """Keeps the greatest peak that it booked."""

    most = 0

    def book(self, plan):
        receipt = super().book(plan)
        Spied.most = max(Spied.most, self.allocated_bytes, receipt.peak_bytes if receipt else 0)
        return receipt


@pytest.mark.parametrize("name", STRATEGIES)
def test_rows_tell_the_peak_that_was_booked(name, monkeypatch):
    monkeypatch.setattr(base, "Ledger", Spied)
    Spied.most = 0
    turns = (Request(50, 30), Request(90, 40), Request(20, 5))
    recorder = run(
        {"it": small(name)},
        [Session(0, turns), Session(0, turns[1:])],
        Fake(),
        num_repetitions=1,
        num_warmup=0,
        max_concurrency=2,
        budget_bytes=None,
    )
    steps = steps_frame(recorder)
    held = steps["allocated_bytes"] + steps["transient_bytes"] + steps["workspace_bytes"]
    assert held.max() == Spied.most
    assert (steps["transient_bytes"] >= 0).all()
