"""Tiers below the device: which blocks are loaded from them, what is stored there, and what leaves them for that."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import groupby, takewhile
from typing import NamedTuple

from kvbench.engine.tiers import ALWAYS, COST, EVICTION, THROUGH, is_worth
from kvbench.ledger import LedgerView, LoadTimes
from kvbench.ledger.names import Named
from kvbench.ledger.stored import DraftStored
from kvbench.plan.ops import Drop, Operation, Reuse, Save
from kvbench.strategy.fetches import NOTHING_COME, Come


class Below(NamedTuple):
    """Blocks of a request that lie below the device, behind those that are there.

    Args:
        blocks: each with the tier that it is loaded from, the first that has it; without a gap.
        num_first: how many the first tier has.
        num_come: how many it has with what has come for the request; 0: no more than so.
    """

    blocks: Sequence[tuple[str, Named]] = ()
    num_first: int = 0
    num_come: int = 0


class Tiers(NamedTuple):
    """What a strategy does with tiers below the device; see `engine.tiers`.

    Args:
        blocks: that each holds, the next below the device first.
        writes: when blocks are stored, of TIER_WRITES.
        loads: which are loaded, of TIER_LOADS.
        block_tokens: tokens of a block.
        times: what loading takes; None: no time.
    """

    blocks: Mapping[str, int]
    writes: str = THROUGH
    loads: str = ALWAYS
    block_tokens: int = 1
    times: LoadTimes | None = None

    def found(self, keys: Sequence[Hashable], view: LedgerView, before: int = 0, come: Come = NOTHING_COME) -> Below:
        """What lies below of the blocks that follow those of the device.

        Args:
            keys: of the blocks behind, as far as they can be taken over.
            view: the ledger.
            before: blocks of the device.
            come: what has come for the request.
        """
        if not self.blocks:
            return Below()
        first, most = next(iter(self.blocks.items()))
        blocks = list(self._found(keys, view.stored()))
        num_first = sum(1 for _ in takewhile(lambda each: each[0] == first, blocks))
        num_come = min(come.end - before, len(blocks), most)
        if not come.begin - before <= num_first < num_come:
            return Below(blocks, num_first)
        return Below([(first, named) for _, named in blocks[:num_come]] + blocks[num_come:], num_first, num_come)

    def loaded(self, seq: int, below: Below) -> tuple[Reuse, ...]:
        """What loads blocks that follow those of the device, stretch by stretch.

        Args:
            seq: whose.
            below: what there is.
        """
        ops: list[Reuse] = []
        busy: dict[str, int] = {}
        for tier, stretch in groupby(below.blocks, key=lambda each: each[0]):
            loads = [Reuse(seq, named.key, tier=tier) for _, named in stretch]
            if self.loads == COST and not self._is_worth(tier, len(loads), busy):
                break
            ops += loads
        return tuple(ops)

    def fetched(self, below: Below, stored: DraftStored) -> Iterator[Operation]:
        """What stores blocks in the first tier that have come for a request, with those before them, the deepest first.

        Args:
            below: what there is of the request.
            stored: what tiers keep after what is planned before it.
        """
        for tier, named in reversed(below.blocks[: below.num_come]):
            yield from self._stored(named, tier, stored)

    def _found(self, keys: Sequence[Hashable], stored: DraftStored) -> Iterator[tuple[str, Named]]:
        """Blocks that are there without a gap, each with the first tier that has it."""
        for key in keys:
            for tier in self.blocks:
                named = stored.of(tier, key)
                if named is not None:
                    yield tier, named
                    break
            else:
                return

    def _is_worth(self, tier: str, num_blocks: int, busy: dict[str, int]) -> bool:
        """Whether a stretch is worth loading, behind what the link was given; `busy`, by this request so far."""
        times = self.times
        if times is None:
            return True
        block_ps, wait_ps = times.block_ps(tier), times.wait_ps(tier) + busy.get(tier, 0)
        busy[tier] = busy.get(tier, 0) + num_blocks * block_ps
        return is_worth(wait_ps, times.latency_ps(tier), num_blocks, block_ps, self.block_tokens, times.token_ps)

    def let_go(self, keys: Sequence[Hashable], view: LedgerView) -> Iterator[Operation]:
        """What stores the named blocks that a request lets go of, the deepest first, where that is when it is done."""
        if self.blocks and self.writes == THROUGH:
            stored, tier = view.stored(), next(iter(self.blocks))
            for key in reversed(keys):
                yield from self._stored(view.named(key), tier, stored)

    def evicted(self, named: Named, stored: DraftStored) -> Iterator[Operation]:
        """What stores a block that the device drops, where that is when it is done.

        Args:
            named: the block.
            stored: what tiers keep after what is planned before it.
        """
        if self.blocks and self.writes == EVICTION:
            yield from self._stored(named, next(iter(self.blocks)), stored)

    def _stored(self, named: Named, tier: str, stored: DraftStored) -> Iterator[Operation]:
        """What stores a block, with what leaves the tier for it, and the tiers below."""
        if stored.of(tier, named.key) is None and stored.count(tier) == self.blocks[tier]:
            oldest = stored.oldest(tier)
            below = tuple(self.blocks)[tuple(self.blocks).index(tier) + 1 :]
            leaving = stored.of(tier, oldest)
            if below and leaving is not None:
                yield from self._stored(leaving, below[0], stored)
            stored.take_out(tier, oldest)
            yield Drop(oldest, tier)
        stored.put(tier, named)
        yield Save(named.key, tier)


NO_TIERS = Tiers({})
