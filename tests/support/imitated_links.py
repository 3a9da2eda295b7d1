"""The plain engine with tiers below its pool, and links that loads pass one by one."""

from collections import OrderedDict
from typing import NamedTuple

from tests.support.imitated import Engine, Pool


class PlainTier(NamedTuple):
    """A tier: blocks that it holds, how long each takes on its link, and a transfer's latency."""

    size: int
    block_ns: int
    latency_ns: int


class Below:
    """Tiers, the next below the device first: names, the least recently stored first, and counts by tier."""

    def __init__(self, tiers):
        self.tiers, self.names = tiers, [OrderedDict() for _ in tiers]
        self.written, self.loaded, self.fetched = ([0] * len(tiers) for _ in range(3))

    def store(self, name, number=0):
        if number == len(self.tiers):
            return
        own = self.names[number]
        if name in own:
            own.move_to_end(name)
            return
        own[name] = True
        self.written[number] += 1
        if len(own) > self.tiers[number].size:
            oldest, _ = own.popitem(last=False)
            self.store(oldest, number + 1)

    def stretches(self, names):
        """Pairs of a tier and how many blocks, as far as every block is in some tier."""
        found = []
        for name in names:
            number = next((i for i, own in enumerate(self.names) if name in own), None)
            if number is None:
                break
            if found and found[-1][0] == number:
                found[-1][1] += 1
            else:
                found.append([number, 1])
        return found


class StoringPool(Pool):
    """A pool that stores below what it drops, or what requests let go of."""

    def __init__(self, num_blocks, size, below, writes):
        super().__init__(num_blocks, size)
        self.below, self.writes = below, writes

    def gone(self, key):
        if self.writes == "eviction":
            self.below.store(key)

    def let_go(self, request):
        if self.writes == "through":
            for block in reversed(request.blocks):
                if block in self.names:
                    self.below.store(self.names[block])
        super().let_go(request)


class TimedEngine(Engine):
    """Steps of so many nanoseconds, or as long as their loads take; a token is worth so many, None: all is loaded."""

    def __init__(self, requests, num_blocks, size, max_live, budget, tiers, writes, token_ns, step_ns):
        super().__init__(requests, num_blocks, size, max_live, budget)
        self.below, self.token_ns, self.step_ns = Below(tiers), token_ns, step_ns
        self.pool = StoringPool(num_blocks, size, self.below, writes)
        self.ends, self.tokens, self.waits = {}, {}, {}

    def run(self):
        while self.coming or self.running or self.waiting:
            if not self.running and not self.waiting:
                self.step = max(self.step, self.coming[0].arrival)
            while self.coming and self.coming[0].arrival <= self.step:
                self.waiting.append(self.coming.popleft())
                self.joined(self.waiting[-1])
            self.busy, self.ready, before = [0] * len(self.below.tiers), 0, len(self.finished)
            scheduled, _ = self._scheduled()
            self._computed(scheduled)
            lasted = max(self.step_ns, self.ready)
            self.step += lasted
            self.passed(lasted)
            self.ends |= dict.fromkeys(self.finished[before:], self.step)

    def joined(self, request):
        """A request has come."""

    def passed(self, num_ns):
        """An iteration took so long."""

    def found_below(self, names):
        return self.below.stretches(names)

    def taken(self, request, found):
        size, ready, tokens = self.pool.size, 0, [0] * len(self.below.tiers)
        most = request.keys[: (request.num_tokens - 1) // size]
        for number, count in self.found_below(most[len(found) :]):
            own = self.below.tiers[number]
            lasts = self.busy[number] + own.latency_ns + count * own.block_ns
            if self.token_ns is not None and lasts > count * size * self.token_ns:
                break
            self.busy[number] += count * own.block_ns
            ready = max(ready, self.busy[number] + own.latency_ns)
            self.below.loaded[number] += count
            tokens[number] += count * size
        request.computed += sum(tokens)
        if not request.num_preemptions:
            self.tokens[request.number] = tokens
        self.waits[request.number] = self.waits.get(request.number, 0) + ready
        self.ready = max(self.ready, ready)
