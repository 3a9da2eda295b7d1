"""Tiers below the pool of `imitated.Engine`, as lists of names: block by block, and slow."""

from tests.support.imitated import Engine, Pool


class TieredPool(Pool):
    """A pool whose blocks are kept in tiers below, given as pairs of a name and a number of blocks."""

    def __init__(self, num_blocks, size, tiers, writes):
        super().__init__(num_blocks, size)
        self.tiers, self.writes = tiers, writes
        self.copies = [[] for _ in tiers]  # the one stored last stands last
        self.written, self.loaded = ([0] * len(tiers) for _ in range(2))

    def store(self, key, number=0):
        if number == len(self.tiers):
            return
        own = self.copies[number]
        if key in own:
            own.remove(key)
        else:
            self.written[number] += 1
        own.append(key)
        if len(own) > self.tiers[number][1]:
            self.store(own.pop(0), number + 1)

    def below(self, keys):
        """The tiers, by number, of the first blocks that lie below."""
        found = []
        for key in keys:
            holding = [number for number, own in enumerate(self.copies) if key in own]
            if not holding:
                break
            found.append(holding[0])
        return found

    def gone(self, key):
        if self.writes == "eviction":
            self.store(key)

    def let_go(self, request):
        if self.writes == "through":
            for block in reversed(request.blocks):
                if block in self.names:
                    self.store(self.names[block])
        super().let_go(request)


class TieredEngine(Engine):
    """The engine with such a pool: what a request finds below is loaded into new blocks, and not computed."""

    def __init__(self, requests, num_blocks, size, max_live, budget, tiers, writes):
        super().__init__(requests, num_blocks, size, max_live, budget)
        self.pool = TieredPool(num_blocks, size, tiers, writes)
        self.loads = {}

    def taken(self, request, found):
        pool = self.pool
        most = (request.num_tokens - 1) // pool.size
        below = pool.below(request.keys[len(found) : most])
        for number in below:
            pool.loaded[number] += 1
        if not request.num_preemptions:
            counts = [below.count(number) * pool.size for number in range(len(pool.tiers))]
            self.loads[request.number] = {
                name: count for (name, _), count in zip(pool.tiers, counts, strict=True) if count
            }
        request.computed += len(below) * pool.size
