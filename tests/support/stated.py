"""A plain imitation of a scheduler over blocks and states with names: lists, dictionaries, and a step at a time."""

from dataclasses import dataclass, field


@dataclass(eq=False)
class Block:
    """Of one pool, of either kind."""

    name: object = None
    holders: int = 1


@dataclass(eq=False)
class Pool:
    """What is free, what nobody holds, the first let go of first, and what has which name."""

    free: int
    idle: list = field(default_factory=list)
    named: dict = field(default_factory=dict)

    def there(self):
        return self.free + len(self.idle)

    def take(self):
        if not self.free:
            gone = self.idle.pop(0)
            self.named[gone.name].remove(gone)
            self.free += 1
        self.free -= 1
        return Block()

    def find(self, name):
        return next(iter(self.named.get(name, ())), None)

    def call(self, block, name):
        block.name = name
        self.named.setdefault(name, []).append(block)

    def hold(self, block):
        if not block.holders:
            self.idle.remove(block)
        block.holders += 1

    def let_go(self, block):
        block.holders -= 1
        if block.holders:
            return
        if block.name is None:
            self.free += 1
        else:
            self.idle.append(block)


@dataclass(eq=False)
class Asked:
    """A request: its blocks and states by place, what is computed of what is known, and where others left it."""

    number: int
    prompt: int
    answer: int
    names: list
    known: int = 0
    computed: int = 0
    junction: int = 0
    blocks: list = field(default_factory=list)
    states: dict = field(default_factory=dict)


class Imitation:
    """Serves requests; `steps` are as a recording's."""

    def __init__(self, document):
        self.size, self.tokens = document["block_size"], document["max_num_batched_tokens"]
        self.most, self.interval = document["max_num_seqs"], document["state_interval"]
        self.pool = Pool(document["num_blocks"] - 1)
        self.coming = [
            (each["arrival_step"], Asked(row, each["prompt_tokens"], each["output_tokens"], each["block_ids"]))
            for row, each in enumerate(document["requests"])
        ]
        self.waiting, self.running, self.steps, self.hits = [], [], [], 0
        for _, asked in self.coming:
            asked.known = asked.prompt
        self.first = {asked.number for _, asked in self.coming}

    def serve(self):
        while self.coming or self.waiting or self.running:
            while self.coming and self.coming[0][0] <= len(self.steps):
                self.waiting.append(self.coming.pop(0)[1])
            self.step()

    def step(self):
        self.budget, self.fresh, self.scheduled, self.preempted = self.tokens, set(), [], []
        for asked in list(self.running):
            if asked in self.running and self.budget:
                self.turn(asked)
        while self.waiting and not self.preempted and self.budget and len(self.running) < self.most:
            if not self.admit(self.waiting[0]):
                break
        for asked, _ in self.scheduled:
            if asked.computed == asked.known:
                asked.known += 1
                if asked.known == asked.prompt + asked.answer:
                    self.running.remove(asked)
                    self.release(asked)
        scheduled = [[asked.number, count] for asked, count in self.scheduled]
        self.steps.append([scheduled, sorted(self.preempted), self.pool.there()])

    def turn(self, asked):
        count = self.cut(asked, asked.computed)
        if not count:
            return
        for place in [place for place in asked.states if place < (asked.computed - 1) // self.size]:
            self.pool.let_go(asked.states.pop(place))
        while self.lacking(asked, asked.computed + count) > self.pool.there():
            victim = self.running.pop()
            self.release(victim)
            victim.computed, self.preempted = 0, [*self.preempted, victim.number]
            self.waiting.insert(0, victim)
            if victim is asked:
                return
        self.compute(asked, count)

    def admit(self, asked):
        longest = 0
        while longest < (asked.known - 1) // self.size and self.pool.find(asked.names[longest]):
            longest += 1
        found = next((n for n in range(longest, 0, -1) if self.pool.find(("state", asked.names[n - 1]))), 0)
        asked.junction = longest * self.size if longest > found else 0
        if found and asked.names[found - 1] in self.fresh:
            return False
        count = self.cut(asked, found * self.size)
        hit = [self.pool.find(name) for name in asked.names[:found]]
        state = self.pool.find(("state", asked.names[found - 1])) if found else None
        idle = sum(not block.holders for block in (*hit, state) if block)
        if not count or -(-asked.known // self.size) - found + 1 + idle > self.pool.there():
            return False
        for block in (*hit, state):
            if block:
                self.pool.hold(block)
        asked.blocks, asked.states = hit, {found - 1: state} if found else {}
        asked.computed = found * self.size
        self.hits += asked.computed * (asked.number in self.first)
        self.first.discard(asked.number)
        self.running.append(self.waiting.pop(0))
        self.compute(asked, count)
        return True

    def cut(self, asked, start):
        """A prompt's steps end with blocks, at its last block's end, where others part, and never run over one."""
        size, last = self.size, max(asked.prompt, asked.known - 1)
        end = start + min(asked.known - start, self.budget)
        if start >= last:
            return end - start
        if end < last and (end // size * size > start or size <= self.tokens):
            end = end // size * size
        stops = [(asked.known - 1) // size * size, asked.junction]
        stops += [(start // size + 1) * size] if start % size else []
        return max(min([stop for stop in stops if start < stop < end], default=end) - start, 0)

    def lacking(self, asked, end):
        return -(-end // self.size) - len(asked.blocks) + ((end - 1) // self.size not in asked.states)

    def compute(self, asked, count):
        before, end, size = asked.computed, asked.computed + count, self.size
        while len(asked.blocks) * size < end:
            asked.blocks.append(self.pool.take())
        place = (end - 1) // size
        if place not in asked.states:
            asked.states[place] = self.pool.take()
        for number in range(before // size, end // size):
            self.pool.call(asked.blocks[number], asked.names[number])
        wanted = [(asked.prompt - 1) // size * size, asked.junction]
        wanted += [end] if self.interval and end % self.interval == 0 else []
        if end % size == 0 and end in wanted:
            self.pool.call(asked.states[place], ("state", asked.names[place]))
            self.fresh.add(asked.names[place])
        asked.computed, self.budget = end, self.budget - count
        self.scheduled.append((asked, count))

    def release(self, asked):
        for block in (*reversed(asked.blocks), *(asked.states[place] for place in sorted(asked.states, reverse=True))):
            self.pool.let_go(block)
        asked.blocks, asked.states = [], {}
