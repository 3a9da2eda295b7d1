"""What a strategy declares of itself, and what its plans then do."""

import asyncio

import pytest
import torch

from kvbench.integrations.layerwise import Layerwise
from kvbench.ledger import Ledger, LedgerError, Limits
from kvbench.plan.area import Area, Blocks, Chunks, Holes, Packed, Ring
from kvbench.plan.ops import Append, Fork, Keep, Move, Reserve, Rule, Settle, Truncate
from kvbench.quality.probe import Probe
from kvbench.quality.structured import structured
from kvbench.runner.aio import AsyncCaches, CacheClosed, CacheRefused
from kvbench.runner.drive import drive
from kvbench.runner.run import run
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Request, Session
from tests.support.catalogue import STRATEGIES, TINY, strategy
from tests.support.driven import LONGEST, tokens
from tests.support.fake import Fake

NUM_TOKENS = 8
COLD = Area("cold", Chunks(4), attended=False)
FEW = Area("few", Chunks(4), format=Packed(8, 4, "token"))
HOST = Area("host", Chunks(4), tier="host")
TO_MAIN = (Reserve(0, NUM_TOKENS), Append(0, NUM_TOKENS))


def beside(name, **how):
    return Reserve(0, NUM_TOKENS, name), Move(0, "main", name, Rule(recent=4), **how)


LOSSES = {
    "recent": ((Area(),), (), (Keep(0, Rule(recent=4)),)),
    "all": ((Area(),), (), (Keep(0, Rule()),)),
    "first and recent": ((Area(positions=True),), (), (Keep(0, Rule(1, 3)),)),
    "top": ((Area(layout=Holes(), positions=True),), (), (Keep(0, Rule(recent=2, top=2, by="norm")),)),
    "ring": ((Area(layout=Ring()),), (), (Keep(0, Rule(recent=4)),)),
    "ring, before the append": ((Area(layout=Ring()),), (), (Keep(0, Rule(recent=7)), Append(0, 1))),
    "pinned ring": ((Area(layout=Ring(2)),), (), (Keep(0, Rule(first=2, recent=4)),)),
    "chunks": ((Area(layout=Chunks(4)),), (), (Keep(0, Rule(recent=3)),)),
    "blocks": ((Area(layout=Blocks(4, 64)),), (), (Keep(0, Rule(recent=4)),)),
    "of the host": ((HOST, Area()), (), (*beside("host"), Keep(0, Rule(recent=2), "host"))),
    "out of sight": ((COLD, Area()), (), beside("cold")),
    "out of sight, in the background": ((COLD, Area(layout=Ring())), (), beside("cold", background=True)),
    "rounded": ((FEW, Area()), (), beside("few")),
    "rounded, in the background": ((FEW, Area(layout=Ring())), (), beside("few", background=True)),
    "rounded at once": ((FEW, Area()), (Reserve(0, 8, "few"), Append(0, 8, "few")), ()),
    "never in sight": ((COLD, Area()), (Reserve(0, 8, "cold"), Append(0, 8, "cold")), ()),
    "newest removed": ((Area(),), (), (Truncate(0, 1),)),
    "newest removed, then more": ((Area(),), (), (Truncate(0, 2), Append(0, 1))),
}
"""Areas, the plan of the append (TO_MAIN where none), and what follows attention."""


class Losing(Strategy):
    """Loses as it is told to, once, and does not say so; its sequence may have any number."""

    def __init__(self, areas, append, after):
        self.areas, self._append, self._after = areas, append or TO_MAIN, after

    def on_append(self, seq, num_tokens, view):
        return tuple(numbered(op, seq) for op in self._append)

    def on_attended(self, seq, num_tokens, view):
        return tuple(numbered(op, seq) for op in self._after)


def numbered(op, seq):
    return type(op)(**{name: getattr(op, name) for name in op.__slots__} | {"seq": seq})


SESSION = Session(0, (Request(NUM_TOKENS),))


def by_run(chosen):
    run({"mine": chosen}, [SESSION], Fake(), num_repetitions=1, num_warmup=0, max_concurrency=1, budget_bytes=None)


def by_probe(chosen):
    Probe(SESSION, structured(TINY, NUM_TOKENS, 0), TINY, "cpu")(chosen)


def by_layers(chosen):
    batch = Layerwise(chosen, TINY, 1, torch.device("cpu"), None, 0)
    batch.begin(NUM_TOKENS)
    for layer in range(TINY.num_layers):
        batch.enter(layer)
        batch.leave(layer, is_attended=True)


def by_asyncio(chosen):
    async def update():
        async with AsyncCaches(chosen, TINY, device="cpu") as caches:
            new = tokens(torch.Generator().manual_seed(0), 1, NUM_TOKENS)
            await caches.update("mine", new, new)

    try:
        asyncio.run(update())
    except (CacheRefused, CacheClosed) as error:
        raise error.__cause__ from None


def by_claims(chosen):
    drive(Fake(), chosen, SESSION)


@pytest.mark.parametrize("what", LOSSES)
def test_a_loss_that_is_not_declared_is_refused_at_once_with_the_strategys_name(what):
    with pytest.raises(LedgerError, match=r"Losing is declared lossless"):
        by_claims(Losing(*LOSSES[what]))


@pytest.mark.parametrize("driver", [by_run, by_probe, by_layers, by_asyncio])
@pytest.mark.parametrize("what", ["recent", "rounded", "out of sight"])
def test_whoever_drives_it(driver, what):
    with pytest.raises(LedgerError, match=r"Losing is declared lossless"):
        driver(Losing(*LOSSES[what]))


def test_a_run_says_what_the_user_called_it():
    with pytest.raises(LedgerError, match=r"strategy mine planned what cannot be done: Keep.*Losing"):
        by_run(Losing(*LOSSES["recent"]))


def test_a_run_says_whose_operation_cannot_be():
    class Odd(Strategy):
        def on_append(self, seq, num_tokens, view):
            return (Reserve(seq, num_tokens / 2),)

    with pytest.raises(LedgerError, match=r"strategy mine planned what cannot be done: Reserve: num_tokens is an"):
        by_run(Odd())


@pytest.mark.parametrize("what", LOSSES)
def test_what_is_declared_is_not_refused(what):
    chosen = Losing(*LOSSES[what])
    chosen.lossless = False
    by_claims(chosen)


@pytest.mark.parametrize("what", ["recent", "ring, before the append", "out of sight", "never in sight", "of the host"])
def test_neither_does_a_loss_pass_as_rounding(what):
    class Rounding(Losing):
        lossless = False
        attends_all = True

    with pytest.raises(LedgerError, match=r"attention reads \d of \d tokens, and Rounding is declared to attend"):
        by_claims(Rounding(*LOSSES[what]))


def test_what_is_refused_leaves_no_trace():
    ledger = Losing(*LOSSES["recent"]).ledger(TINY)
    ledger.open(0)
    ledger.book(TO_MAIN)
    before = ledger.used_bytes, ledger.view.num_used(0)
    with pytest.raises(LedgerError, match="declared lossless"):
        ledger.book((Keep(0, Rule(recent=4)),))
    assert (ledger.used_bytes, ledger.view.num_used(0), ledger.view.num_altered(0)) == (*before, 0)


def test_tiers_rows_and_what_the_caller_takes_back_lose_nothing():
    chosen = Losing((HOST, Area(layout=Ring())), (), ())
    ledger = chosen.ledger(TINY)
    ledger.open(0)
    ledger.book((*TO_MAIN, Keep(0, Rule(recent=8))))  # all stay
    ledger.book((Reserve(0, 8, "host"), Move(0, "main", "host", Rule(recent=4), background=True)))
    ledger.book((Settle(0), Append(0, 1)))
    ledger.crop(Truncate(0, 1))
    assert (ledger.view.num_seen(0), ledger.view.num_attended(0), ledger.view.num_altered(0)) == (8, 8, 0)


def test_tokens_that_attention_never_reads_are_altered_however_they_are_appended():
    ledger = Ledger(TINY, areas=(COLD, Area()))
    ledger.open(0)
    ledger.book((Reserve(0, 8, "cold"),))
    ledger.book((Append(0, 3, "cold"),))
    assert ledger.view.num_altered(0) == 3


def test_a_fork_does_not_pass_altered_tokens_on_as_whole_ones():
    ledger = Ledger(TINY, areas=(FEW, Area(layout=Blocks(4, 64))))
    ledger.open(0)
    ledger.open(1)
    ledger.book((Reserve(0, 8), Append(0, 8), Reserve(0, 8, "few"), Move(0, "main", "few")))
    ledger.book((Reserve(0, 8), Move(0, "few", "main")))
    assert (ledger.view.num_used(0), ledger.view.num_altered(0)) == (8, 8)
    with pytest.raises(LedgerError, match="no longer in its blocks as they were"):
        ledger.book((Fork(0, 1, 4),))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"lossless": "no"}, "lossless is True or False, got 'no'"),
        ({"attends_all": False}, "is lossless, so that attention reads all its tokens"),
        ({"areas": ()}, "areas is a tuple of one Area or more"),
        ({"areas": [Area()]}, "areas is a tuple of one Area or more"),
        ({"areas": (Area, Area())}, "areas is a tuple of one Area or more"),
        ({"areas": (Area(), Area(layout=Chunks(4)))}, "2 areas, and main more than once"),
    ],
)
def test_what_cannot_be_declared_is_refused_before_anything_is_held(changed, words):
    odd = type("Odd", (Losing,), changed)
    chosen = odd.__new__(odd)
    with pytest.raises(ValueError, match=words):
        chosen.ledger(TINY)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_of_the_catalogue_declares_what_can_be(name):
    chosen = strategy(name).fitted(Limits(geometry=TINY, budget_bytes=None, num_rows=1, live_tokens=LONGEST))
    assert chosen.ledger(TINY).declared.lossless == strategy(name).lossless
