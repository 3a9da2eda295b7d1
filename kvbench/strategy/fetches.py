"""What is fetched ahead for requests that wait, from tiers below the first: see `engine.tiers`."""

from collections.abc import Mapping
from typing import NamedTuple

from kvbench.engine.tiers import free_again_ns, num_come
from kvbench.ledger import LoadTimes


class Come(NamedTuple):
    """Blocks of a request's text that have come to the first tier, or are thought to be there.

    Args:
        begin: where those end that the device and the first tier had, as it joined the queue.
        end: where those end that have come behind.
    """

    begin: int = 0
    end: int = 0


NOTHING_COME = Come()


class Fetch(NamedTuple):
    """What is fetched for a request over one link.

    Args:
        tier: from where.
        num_blocks: how many.
        issue_ns: since when, of the link's `spare_ns`.
    """

    tier: str
    num_blocks: int
    issue_ns: int


class Fetches:
    """Links that fetch ahead for requests in the order in which they joined the queue.

    Args:
        times: what that takes; None: no time.
    Attributes:
        now_ns: the clock, as the present pass over live requests began.
    """

    def __init__(self, times: LoadTimes | None) -> None:
        self._times = times
        self.clear()

    def clear(self) -> None:
        """Begin with links that are free, and nobody who waits."""
        self.now_ns = 0
        self._free_ns: dict[str, int] = {}
        self._waiting: dict[int, tuple[int, list[Fetch]]] = {}

    def issue(self, seq: int, begin: int, num_blocks: Mapping[str, int]) -> None:
        """Fetch blocks for a request that joins the queue.

        Args:
            seq: the request's.
            begin: where the blocks end that the device and the first tier have.
            num_blocks: of those behind, by the tier that they come from, in order.
        """
        self._waiting[seq] = begin, [Fetch(tier, count, self._spare_ns(tier)) for tier, count in num_blocks.items()]

    def come(self, seq: int) -> Come:
        """What has come for a request by now, without a gap."""
        if seq not in self._waiting:
            return NOTHING_COME
        begin, fetches = self._waiting[seq]
        end = begin
        for fetch in fetches:
            count = self._num_come(fetch)
            end += count
            if count < fetch.num_blocks:
                break
        return Come(begin, end)

    def stop(self, seq: int) -> None:
        """Fetch no more for a request, which is admitted."""
        if self._times is not None:
            for tier, num_blocks, issue_ns in self._waiting.get(seq, (0, []))[1]:
                each_ps = self._times.block_ps(tier)
                start_ns = self._start_ns(tier, issue_ns)
                self._free_ns[tier] = free_again_ns(start_ns, self._spare_ns(tier), each_ps, num_blocks)
        self._waiting.pop(seq, None)

    def _num_come(self, fetch: Fetch) -> int:
        times, (tier, num_blocks, issue_ns) = self._times, fetch
        if times is None:
            return num_blocks
        figures = times.latency_ps(tier), times.block_ps(tier), num_blocks
        return num_come(self._start_ns(tier, issue_ns), self._spare_ns(tier), *figures)

    def _start_ns(self, tier: str, issue_ns: int) -> int:
        return max(issue_ns, self._free_ns.get(tier, 0))

    def _spare_ns(self, tier: str) -> int:
        return 0 if self._times is None else self._times.spare_ns(tier, self.now_ns)
