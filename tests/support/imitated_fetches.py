"""The plain engine with tiers, and links that fetch for those who wait, one after another, block by block."""

from collections import deque
from itertools import takewhile

from tests.support.imitated_links import TimedEngine


class Transfer:
    """Blocks that pass a link for a request; when they began is set when the link has come to them."""

    def __init__(self, count):
        self.count, self.spent, self.start = count, 0, None


class FetchingLink:
    """A link of a tier, on a clock that stands while there are loads."""

    def __init__(self, tier):
        self.tier, self.clock, self.transfers = tier, 0, deque()

    def give(self, count):
        transfer = Transfer(count)
        if count:
            self.transfers.append(transfer)
        return transfer

    def pass_time(self, left):
        while left and self.transfers:
            own = self.transfers[0]
            own.start = self.clock if own.start is None else own.start
            spent = min(own.count * self.tier.block_ns - own.spent, left)
            own.spent, self.clock, left = own.spent + spent, self.clock + spent, left - spent
            if own.spent == own.count * self.tier.block_ns:
                self.transfers.popleft()
        self.clock += left

    def come(self, transfer):
        if transfer.start is None:
            return 0
        return min(max(self.clock - transfer.start - self.tier.latency_ns, 0) // self.tier.block_ns, transfer.count)

    def give_up(self, transfer):
        if transfer in self.transfers:
            self.transfers.remove(transfer)


class FetchingEngine(TimedEngine):
    """Who joins the queue has its blocks fetched to the first tier from those below."""

    def __init__(self, *engine):
        super().__init__(*engine)
        self.links, self.fetches = [FetchingLink(tier) for tier in self.below.tiers], {}

    def joined(self, request):
        found = len(self.pool.found(request))
        numbers = self._numbers(request, found)
        begin = found + len(list(takewhile(lambda number: number == 0, numbers)))
        transfers = [link.give(numbers.count(i) if i else 0) for i, link in enumerate(self.links)]
        self.fetches[request.number] = begin, transfers

    def _numbers(self, request, found):
        """The first tier that has it, of each block behind those of the device."""
        stretches = self.below.stretches(request.keys[found : (request.num_tokens - 1) // self.pool.size])
        return [number for number, count in stretches for _ in range(count)]

    def taken(self, request, found):
        found_here = len(found)
        begin, transfers = self.fetches.pop(request.number, (0, []))
        end, is_whole = begin, True
        for link, transfer in zip(self.links, transfers, strict=False):
            end += link.come(transfer) * is_whole
            is_whole &= link.come(transfer) == transfer.count
            link.give_up(transfer)
        numbers = self._numbers(request, found_here)
        there = found_here + len(list(takewhile(lambda number: number == 0, numbers)))
        end = min(end, found_here + len(numbers), found_here + self.below.tiers[0].size)
        come = range(found_here, end) if begin <= there < end else ()
        for place in come:
            self.below.fetched[numbers[place - found_here]] += place >= there
        self.stretches = [[0, len(come)]] * bool(come)
        for number in numbers[len(come) :]:
            if self.stretches and self.stretches[-1][0] == number:
                self.stretches[-1][1] += 1
            else:
                self.stretches.append([number, 1])
        for place in reversed(come):
            self.below.store(request.keys[place])
        super().taken(request, found)

    def found_below(self, names):
        return self.stretches

    def passed(self, num_ns):
        for link, busy in zip(self.links, self.busy, strict=True):
            link.pass_time(num_ns - busy)
