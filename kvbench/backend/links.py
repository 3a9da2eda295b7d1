"""Links to a modelled machine from tiers below its device: what an iteration loads over each, and when it is there."""

from collections.abc import Iterable
from itertools import groupby

from kvbench.engine.tiers import busy_until_ps, drawn, latencies_ps, ready_ps, spare_ns
from kvbench.ledger.costs import AreaCost
from kvbench.model.hardware import Hardware
from kvbench.plan.area import DEVICE, Blocks
from kvbench.plan.ops import Operation, Reuse, Save
from kvbench.timing.links import Link, computing_ps, link_of
from kvbench.timing.prices import PS_PER_NS

REPLICA = 0
"""The number of the only one."""


class TierLinks:
    """Each tier's link and its queue, counted from an iteration's begin; see `engine.tiers`.

    Args:
        hardware: the machine.
        token_ps: what computing a token more takes on it.
        seed: of latencies that vary.
    Attributes:
        token_ps: as given.
        load_ps: by tier, how long its link was given work to load.
        write_ps: by tier, how long what was written there takes on it, the other way.
        saved_ps: by tier, how long computing what was loaded would have taken.
        last_ps: when the last of what the iteration loads is ready.
    """

    def __init__(self, hardware: Hardware, token_ps: int, seed: int) -> None:
        self.token_ps = token_ps
        self._hardware, self._seed = hardware, seed
        self.begin_repetition(None)

    def begin_repetition(self, cost: AreaCost | None) -> None:
        """Begin with links that are free.

        Args:
            cost: of the area whose blocks have names, where it has blocks.
        """
        self._block_bytes = self._block_tokens = 0
        if cost is not None and isinstance(cost.area.layout, Blocks):
            self._block_bytes, self._block_tokens = cost.block_bytes, cost.area.layout.num_tokens
        self._links: dict[str, Link] = {}
        self._latencies: dict[str, tuple[int, ...]] = {}
        self._num_transfers: dict[str, int] = {}
        self.load_ps: dict[str, int] = {}
        self.write_ps: dict[str, int] = {}
        self.saved_ps: dict[str, int] = {}
        self._busy_ps: dict[str, int] = {}
        self._loading_ns: dict[str, int] = {}
        self.begin_iteration()

    def begin_iteration(self) -> None:
        """All that was loaded is there."""
        for tier, busy_ps in self._busy_ps.items():
            self._loading_ns[tier] = self._loading_ns.get(tier, 0) + -(-busy_ps // PS_PER_NS)
        self._busy_ps = {}
        self._waits_ps: dict[int, int] = {}
        self.last_ps = 0

    def _link(self, tier: str) -> Link:
        if tier not in self._links:
            self._links[tier] = link_of(self._hardware, tier, self._block_bytes)
        return self._links[tier]

    def wait_ps(self, tier: str) -> int:
        """See `LoadTimes.wait_ps`."""
        return self._busy_ps.get(tier, 0)

    def block_ps(self, tier: str) -> int:
        """See `LoadTimes.block_ps`."""
        return self._link(tier).block_ps

    def latency_ps(self, tier: str) -> int:
        """See `LoadTimes.latency_ps`."""
        return self._link(tier).latency_ps

    def spare_ns(self, tier: str, moment_ns: int) -> int:
        """See `LoadTimes.spare_ns`."""
        return spare_ns(moment_ns, self._loading_ns.get(tier, 0))

    def load(self, seq: int, plan: Iterable[Operation]) -> None:
        """Give the links what a sequence loads, in stretches of blocks of one tier."""
        loads = (op.tier for op in plan if isinstance(op, Reuse) and op.tier != DEVICE)
        for tier, stretch in groupby(loads):
            num_blocks, block_ps = len(list(stretch)), self.block_ps(tier)
            self._busy_ps[tier] = busy_until_ps(self.wait_ps(tier), 0, num_blocks, block_ps)
            self.load_ps[tier] = self.load_ps.get(tier, 0) + num_blocks * block_ps
            saved_ps = computing_ps(num_blocks, self._block_tokens, self.token_ps)
            self.saved_ps[tier] = self.saved_ps.get(tier, 0) + saved_ps
            ready = ready_ps(self._busy_ps[tier], self._drawn_ps(tier))
            self._waits_ps[seq] = max(self._waits_ps.get(seq, 0), ready)
            self.last_ps = max(self.last_ps, ready)

    def times_ps(self) -> dict[str, dict[str, int]]:
        """See `Backend.tier_times`."""
        return {"load": self.load_ps, "write": self.write_ps, "saved": self.saved_ps}

    def waited_ps(self, seq: int) -> int:
        """When the last of what a sequence loads in the iteration is ready; 0 where it loads nothing."""
        return self._waits_ps.get(seq, 0)

    def write(self, op: Save) -> None:
        """Count a block that is put into a tier."""
        self.write_ps[op.tier] = self.write_ps.get(op.tier, 0) + self.block_ps(op.tier)

    def _drawn_ps(self, tier: str) -> int:
        """The latency of a tier's next transfer."""
        link, number = self._link(tier), self._num_transfers.get(tier, 0)
        self._num_transfers[tier] = number + 1
        if not link.spread:
            return link.latency_ps
        if tier not in self._latencies:
            self._latencies[tier] = latencies_ps(link.fixed_ps, link.varying_ps, link.spread)
        return self._latencies[tier][drawn(self._seed, REPLICA, number)]
