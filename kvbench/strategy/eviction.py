"""Which blocks with names a strategy lets go of first, where others need their room."""

from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Hashable, Iterator
from heapq import heapify, heappop, heappush

from kvbench.engine.eviction import EVICTIONS, LRU, NEVER, OPTIMAL, eviction_rank
from kvbench.ledger import Idle, LedgerView
from kvbench.workload.contents import Keys
from kvbench.workload.request import Session


class EvictionOrder:
    """The order in which blocks go that nobody holds.

    Args:
        eviction: one of EVICTIONS.
        block_tokens: tokens of a block.
    """

    def __init__(self, eviction: str, block_tokens: int) -> None:
        self._eviction = EVICTIONS.index(eviction)
        self._block_tokens = block_tokens
        self._going_on: set[int] = set()
        self._users: dict[Hashable, list[int]] | None = None

    def clear(self) -> None:
        """Forget all requests."""
        self._going_on.clear()
        self._users = None

    def note(self, seq: int, session: Session) -> None:
        """Learn of a request what it says of those to come."""
        if session.goes_on:
            self._going_on.add(seq)
        if self._eviction == OPTIMAL and self._users is None and session.keys is not None:
            self._users = self._users_of(session.keys)

    def _users_of(self, keys: Keys) -> dict[Hashable, list[int]]:
        """Of each block's name the requests in order whose prompts have it."""
        found, contents = defaultdict[Hashable, list[int]](list), keys.contents
        for request, prompt in enumerate((contents.prompts % contents.parents.size).tolist()):
            num_blocks = int(contents.ends[prompt]) // self._block_tokens
            for key in contents.block_keys(request, self._block_tokens)[:num_blocks]:
                found[key].append(request)
        return found

    def going(self, view: LedgerView, but: Collection[Hashable] = ()) -> Iterator[Hashable]:
        """Names of the blocks that nobody holds, in the order in which they go; it ends before anything changes.

        Args:
            view: the ledger.
            but: names, those of which stay that would be taken over.
        """
        return view.idle(but) if self._eviction == LRU else self._ranked(view, but)

    def _ranked(self, view: LedgerView, but: Collection[Hashable]) -> Iterator[Hashable]:
        idle = list(view.idle_blocks(but))
        ranks = [self._rank(each) for each in idle]
        num_behind = Counter(each.named.before for each in idle)
        copies = defaultdict[Hashable, deque[int]](deque)
        for place, each in enumerate(idle):
            copies[each.named.key].append(place)
        ready = [(ranks[place], place) for place, each in enumerate(idle) if not num_behind[each.named.key]]
        heapify(ready)
        gone = set[int]()
        while ready:
            place = heappop(ready)[1]
            if place in gone:
                continue
            key = idle[place].named.key
            first = copies[key].popleft()  # of duplicates the one that was let go of first
            gone.add(first)
            if first != place:
                heappush(ready, (ranks[place], place))
            before = idle[first].named.before
            num_behind[before] -= 1
            if not num_behind[before]:
                for other in copies[before]:
                    heappush(ready, (ranks[other], other))
            yield key

    def _rank(self, idle: Idle) -> int:
        named, use = idle
        users = [] if self._users is None else self._users.get(named.key, [])
        next_user = bisect_right(users, use.latest)
        next_use = users[next_user] if next_user < len(users) else NEVER
        return eviction_rank(self._eviction, named.maker, use.num_found, int(use.latest in self._going_on), next_use)
