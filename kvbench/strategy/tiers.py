"""Tiers below the device: which blocks are loaded from them, what is stored there, and what leaves them for that."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from kvbench.engine.tiers import ALWAYS, COST, EVICTION, THROUGH, is_worth
from kvbench.ledger import LedgerView, LoadTimes
from kvbench.ledger.names import Named
from kvbench.ledger.stored import DraftStored
from kvbench.plan.ops import Drop, Operation, Reuse, Save


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

    def loaded(self, seq: int, keys: Sequence[Hashable], view: LedgerView) -> tuple[Reuse, ...]:
        """What loads blocks that follow those of the device, stretch by stretch.

        Args:
            seq: whose.
            keys: of the blocks behind, as far as they can be taken over.
            view: the ledger.
        """
        if not self.blocks:
            return ()
        ops: list[Reuse] = []
        busy: dict[str, int] = {}
        for tier, stretch in groupby(self._found(keys, view.stored()), key=lambda each: each[0]):
            loads = [Reuse(seq, key, tier=tier) for _, key in stretch]
            if self.loads == COST and not self._is_worth(tier, len(loads), busy):
                break
            ops += loads
        return tuple(ops)

    def _found(self, keys: Sequence[Hashable], stored: DraftStored) -> Iterator[tuple[str, Hashable]]:
        """Blocks that are there without a gap, each with the first tier that has it."""
        for key in keys:
            tier = next((tier for tier in self.blocks if stored.of(tier, key) is not None), None)
            if tier is None:
                return
            yield tier, key

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
