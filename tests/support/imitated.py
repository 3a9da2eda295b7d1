"""An engine's scheduler and block pool in plain Python, block by block: what a fleet with a prefix cache comes to."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from kvbench.workload.contents import NONE, Contents


def contents_of(texts):
    """Contents of requests, given as pairs of token lists: a prompt, and its answer."""
    children, ends = [{}], {0}
    paths = []
    for prompt, answer in texts:
        node, path = 0, [0]
        for token in (*prompt, *answer):
            if token not in children[node]:
                children.append({})
                children[node][token] = len(children) - 1
            node = children[node][token]
            path.append(node)
        ends |= {path[len(prompt)], path[-1]}
        paths.append(path)
    stops = ends | {node for node, below in enumerate(children) if len(below) != 1}
    parents, lengths, number = [], [], {0: NONE}
    for path in paths:
        last = NONE
        for depth, node in enumerate(path[1:], 1):
            if node not in stops:
                continue
            if node not in number:
                number[node] = len(parents)
                parents.append(last)
                lengths.append(depth)
            last = number[node]
    prompts = [number[path[len(prompt)]] for (prompt, _), path in zip(texts, paths, strict=True)]
    answers = [number[path[-1]] for path in paths]
    made = (np.array(values, np.int64) for values in (parents, lengths, prompts, answers))
    return Contents(**dict(zip(("parents", "ends", "prompts", "answers"), made, strict=True)))


@dataclass
class Asked:
    """A request: tokens, names of the full blocks of all of them, and what has become of it."""

    number: int
    arrival: int
    prompt: int
    output: int
    keys: list
    computed: int = 0
    generated: int = 0
    blocks: list = field(default_factory=list)
    num_preemptions: int = 0
    hits: int = 0
    finished: int = NONE
    admitted: int = NONE
    entered: int = NONE

    @property
    def num_tokens(self):
        return self.prompt + self.generated


class Pool:
    """Blocks with names; those that nobody holds in the order in which they were let go of."""

    def __init__(self, num_blocks, size, rank=None):
        self.size, self.free = size, deque(range(num_blocks))
        self.holders, self.names, self.named = [0] * num_blocks, {}, {}
        self.num_evicted, self.rank = 0, rank
        self.before, self.makers, self.num_found, self.latest = {}, {}, [0] * num_blocks, [0] * num_blocks

    def taken(self):
        """The block that is taken next: one without a name, or the first; or by a rank the least of those with none
        free behind."""
        if self.rank is None or self.free[0] not in self.names:
            return self.free.popleft()
        behind = {self.before[block] for block in self.free}
        ends = [block for block in self.free if self.names[block] not in behind]
        least = self.names[min(ends, key=lambda block: self.rank(self, block))]
        block = next(block for block in self.free if self.names[block] == least)
        self.free.remove(block)
        return block

    def found(self, request):
        """The blocks of a request's tokens that are there, never the last token's."""
        blocks = []
        for key in request.keys[: (request.num_tokens - 1) // self.size]:
            if key not in self.named:
                break
            blocks.append(self.named[key][0])
        return blocks

    def has_room(self, num_tokens, found):
        wanted = -(-num_tokens // self.size) - len(found) + sum(self.holders[block] == 0 for block in found)
        return wanted <= len(self.free)

    def hold(self, blocks, number):
        for block in blocks:
            self.num_found[block] += 1
            self.latest[block] = max(self.latest[block], number)
            if self.holders[block] == 0:
                self.free.remove(block)
            self.holders[block] += 1

    def extend(self, request, num_tokens):
        """Blocks for so many tokens, with names for those that they fill; whether there was room."""
        wanted = -(-num_tokens // self.size) - len(request.blocks)
        if wanted > len(self.free):
            return False
        for _ in range(wanted):
            block = self.taken()
            if block in self.names:
                key = self.names.pop(block)
                self.named[key].remove(block)
                if not self.named[key]:
                    del self.named[key]
                self.num_evicted += 1
                self.gone(key)
            self.holders[block] = 1
            request.blocks.append(block)
        for index in range(num_tokens // self.size):
            block = request.blocks[index]
            if block not in self.names and request.keys:
                self.names[block] = request.keys[index]
                self.named.setdefault(request.keys[index], []).append(block)
                self.before[block] = request.keys[index - 1] if index else None
                self.makers[block], self.num_found[block], self.latest[block] = request.entered, 0, request.number
        return True

    def gone(self, key):
        """A block of a name has left the pool."""

    def let_go(self, request):
        for block in reversed(request.blocks):
            self.holders[block] -= 1
            if self.holders[block] == 0:
                if block in self.names:
                    self.free.append(block)
                else:
                    self.free.appendleft(block)
        request.blocks = []


class Engine:
    """Steps of equal length, by vLLM's rules for one group of full attention."""

    def __init__(self, requests, num_blocks, size, max_live, budget, **of_pool):
        self.coming, self.pool = deque(requests), Pool(num_blocks, size, **of_pool)
        self.num_entered = 0
        self.max_live, self.budget = max_live, budget
        self.running, self.waiting, self.step = [], deque(), 0
        self.finished, self.num_queried = [], 0

    def run(self):
        """All steps: tokens a request in the scheduler's order, who was preempted, free blocks after it."""
        rows = []
        while self.coming or self.running or self.waiting:
            rows.append(self.one_step())
        return rows

    def one_step(self):
        """The next one."""
        while self.coming and self.coming[0].arrival <= self.step:
            self.waiting.append(self.coming.popleft())
        scheduled, preempted = self._scheduled()
        self._computed(scheduled)
        self.step += 1
        return [(request.number, count) for request, count in scheduled], preempted, len(self.pool.free)

    def _scheduled(self):
        scheduled, preempted, left, place = [], [], self.budget, 0
        while place < len(self.running) and left:
            request = self.running[place]
            count = min(request.num_tokens - request.computed, left)
            while not self.pool.extend(request, request.computed + count):
                victim = self.running.pop()
                self.pool.let_go(victim)
                victim.computed = 0
                victim.num_preemptions += 1
                self.waiting.appendleft(victim)
                preempted.append(victim.number)
                if victim is request:
                    return scheduled, preempted
            scheduled.append((request, count))
            left -= count
            place += 1
        while not preempted and self.waiting and left and len(self.running) < self.max_live:
            request = self.waiting[0]
            found = self.pool.found(request)
            if not self.pool.has_room(request.num_tokens, found):
                break
            self.waiting.popleft()
            self.pool.hold(found, request.number)
            request.entered = self.num_entered
            self.num_entered += 1
            request.blocks, request.computed = list(found), len(found) * self.pool.size
            if not request.num_preemptions:
                request.hits, request.admitted = request.computed, self.step
                self.num_queried += request.prompt
            self.taken(request, found)
            count = min(request.num_tokens - request.computed, left)
            assert self.pool.extend(request, request.computed + count)
            scheduled.append((request, count))
            left -= count
            self.running.append(request)
        return scheduled, preempted

    def taken(self, request, found):
        """Blocks were found for a request that is admitted."""

    def _computed(self, scheduled):
        for request, count in scheduled:
            request.computed += count
            if request.computed == request.num_tokens:
                request.generated += 1
                if request.generated == request.output:
                    request.finished = self.step
                    self.running.remove(request)
                    self.pool.let_go(request)
                    self.finished.append(request.number)
