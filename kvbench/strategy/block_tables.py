"""Block tables of a sequence, one a group of layers, from one pool: what is found, what fits, what goes."""

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

from kvbench.engine.prefixes import (
    cut_to_checkpoint,
    full_blocks,
    is_checkpoint,
    is_window_kept,
    left_blocks,
    most_hit_blocks,
    most_window_blocks,
    window_blocks,
)
from kvbench.ledger import UNLIMITED, LedgerView
from kvbench.ledger.stored import DraftStored
from kvbench.plan.ops import (
    MAIN,
    NOTHING,
    Append,
    Drop,
    Keep,
    Operation,
    Plan,
    Publish,
    Reserve,
    Reuse,
    Rule,
    append_plan,
)
from kvbench.strategy.eviction import EvictionOrder
from kvbench.strategy.fetches import NOTHING_COME, Come
from kvbench.strategy.tiers import NO_TIERS, Below, Tiers


class BlockTable(NamedTuple):
    """Blocks of some layers.

    Args:
        area: that they are of.
        window: tokens that the layers look at; None: all.
        has_states: whether a block is a state, which a step leaves at its end and nowhere before.
    """

    area: str
    window: int | None = None
    has_states: bool = False

    def left(self, num_tokens: int, block_tokens: int) -> int:
        """Blocks at the front of so many tokens that are not needed any more."""
        return 0 if self.window is None else left_blocks(num_tokens, self.window, block_tokens)

    def name(self, key: Hashable) -> Hashable:
        """What a block of a content is called here: layers of different groups do not find each other's."""
        return key if self.area == MAIN else (self.area, key)

    def num_new(self, held: int, wanted: int) -> int:
        """Blocks that are taken where there are some up to a number, and some are wanted up to another."""
        num_new = max(wanted - held, 0)
        return min(num_new, 1) if self.has_states else num_new


ALL = (BlockTable(MAIN),)


class Stops(NamedTuple):
    """What is known of a sequence whose states, or some of whose windows, are kept, as it is admitted.

    Args:
        prompt: tokens of its prompt.
        known: tokens until its next answer.
        junction: its first tokens that are there in layers that look at all, where more are than it goes on from; 0.
    """

    prompt: int = 0
    known: int = 0
    junction: int = 0


NO_STOPS = Stops()


class BlockTables(NamedTuple):
    """The tables that every sequence has.

    Args:
        block_tokens: tokens of a block.
        tables: of layers that look at all tokens, in the area main, and then those with a window, or with states.
        step_tokens: tokens that a step computes at most; None: not known.
        most_tokens: of the longest sequence; UNLIMITED: not known.
        tiers: below the device.
        state_interval: tokens between states that have names wherever they are; 0: none has for that.
        window_interval: the same of the blocks that a window needs; at most a block's: all.
    """

    block_tokens: int
    tables: tuple[BlockTable, ...] = ALL
    step_tokens: int | None = None
    most_tokens: int = UNLIMITED
    tiers: Tiers = NO_TIERS
    state_interval: int = 0
    window_interval: int = 1

    @property
    def has_states(self) -> bool:
        """Whether a table is of states."""
        return self.tables[-1].has_states

    @property
    def keeps_some(self) -> bool:
        """Whether not all full blocks get names, so that it counts where prompts end and part."""
        return self.has_states or (len(self.tables) > 1 and not 0 < self.window_interval <= self.block_tokens)

    def at_once(self, start: int, num_tokens: int, stops: Stops) -> int:
        """How many of so many tokens of a sequence's prompt, behind those that it has, a step computes."""
        if not self.has_states:
            return num_tokens
        most = UNLIMITED if self.step_tokens is None else self.step_tokens
        return cut_to_checkpoint(start, num_tokens, *stops, most, self.block_tokens)

    def stops_of(self, keys: Sequence[Hashable], prompt: int, num_tokens: int, view: LedgerView) -> Stops:
        """What is known of a sequence that is to compute so many tokens, those that it finds among them."""
        if not self.keeps_some:
            return NO_STOPS
        most = keys[: most_hit_blocks(num_tokens, self.block_tokens)]
        longest = sum(1 for _ in takewhile(view.has_name, most))
        is_longer = longest > self.num_found(keys, num_tokens, view)
        return Stops(prompt, num_tokens, longest * self.block_tokens if is_longer else 0)

    def state_name(self, keys: Sequence[Hashable], num_blocks: int) -> Hashable:
        """What the state behind so many blocks, one or more, is called."""
        return self.tables[-1].name(keys[num_blocks - 1])

    def num_found(self, keys: Sequence[Hashable], num_tokens: int, view: LedgerView) -> int:
        """Blocks that are there, in all layers, of a sequence that is to compute so many tokens.

        Layers that look at all need every block from the first on, those with a window the last ones.

        Args:
            keys: of the contents of its blocks.
            num_tokens: of which the last is never found.
            view: the ledger.
        """
        most = keys[: most_hit_blocks(num_tokens, self.block_tokens)]
        found, before = sum(1 for _ in takewhile(view.has_name, most)), -1
        while found != before:
            before = found
            for table in self.tables[1:]:
                found = self._reach(table, most[:found], view)
        return found

    def _reach(self, table: BlockTable, keys: Sequence[Hashable], view: LedgerView) -> int:
        """The most blocks at whose end a window is there, or all before."""
        assert table.window is not None
        need, run = window_blocks(table.window, self.block_tokens), 0
        for number in reversed(range(len(keys))):
            run = run + 1 if view.has_name(table.name(keys[number])) else 0
            if run == need:
                return number + need
        return run

    def taken_over(
        self,
        seq: int,
        keys: Sequence[Hashable],
        num_tokens: int,
        view: LedgerView,
        order: EvictionOrder,
        come: Come = NOTHING_COME,
    ) -> Plan:
        """What takes over the blocks that are there, and loads those that lie below the device behind them."""
        found, below = self.below(keys, num_tokens, view, come)
        reused = tuple(
            Reuse(seq, table.name(key), table.area)
            for table in self.tables
            for key in keys[table.left(found * self.block_tokens, self.block_tokens) : found]
        )
        loads, stored = self.tiers.loaded(seq, below), view.stored()
        ops = [*reused, *self.tiers.fetched(below, stored)]
        if loads and self._has_load_room(keys[:found], len(loads), view):
            lacking_bytes = len(loads) * view.block_bytes() - view.free_bytes()
            ops += [*self._dropped(lacking_bytes, view, order, frozenset(keys[:found]), stored), *loads]
        return tuple(ops)

    def below(
        self, keys: Sequence[Hashable], num_tokens: int, view: LedgerView, come: Come = NOTHING_COME
    ) -> tuple[int, Below]:
        """Blocks that are there of a sequence, and those that lie below the device behind them.

        Args:
            keys: of the contents of its blocks.
            num_tokens: that it is to compute.
            view: the ledger.
            come: what was fetched ahead for it.
        """
        found, most = self.num_found(keys, num_tokens, view), most_hit_blocks(num_tokens, self.block_tokens)
        return found, self.tiers.found(keys[found:most], view, found, come)

    def further(self, keys: Sequence[Hashable], num_tokens: int, view: LedgerView) -> tuple[int, Mapping[str, int]]:
        """Where a sequence's blocks end that the device and the first tier have, and how many lie further below, by
        tier. As of `below`."""
        found, below = self.below(keys, num_tokens, view)
        return found + below.num_first, Counter(tier for tier, _ in below.blocks[below.num_first :])

    def has_load_room(self, keys: Sequence[Hashable], num_tokens: int, view: LedgerView, come: Come) -> bool:
        """Whether there is room for what a sequence would load, beside the blocks that it finds. As of `below`."""
        if not self.tiers.blocks:
            return True
        found, below = self.below(keys, num_tokens, view, come)
        return self._has_load_room(keys[:found], len(self.tiers.loaded(0, below)), view)

    def _has_load_room(self, found: Sequence[Hashable], num_loads: int, view: LedgerView) -> bool:
        """The same of so many loads; of what it finds it would hold those that nobody does."""
        num_idle = sum(not view.is_held(key) for key in found)
        return not num_loads or (num_loads + num_idle) * view.block_bytes() <= view.free_bytes() + view.idle_bytes()

    def has_room(self, keys: Sequence[Hashable], num_tokens: int, num_now: int, view: LedgerView) -> bool:
        """Whether what is free, or held by nobody, is enough for a sequence's tokens, and for its next step.

        Args:
            keys: of the contents of its blocks.
            num_tokens: all that it is to compute, and to find.
            num_now: that a step can compute, at most.
            view: the ledger.
        """
        found = self.num_found(keys, num_tokens, view)
        free_bytes = view.free_bytes() + view.idle_bytes()
        now = min(found * self.block_tokens + num_now, num_tokens)
        return all(
            sum(self._taken_bytes(table, keys[:found], count, is_whole, view) for table in self.tables) <= free_bytes
            for count, is_whole in ((num_tokens, True), (now, False))
        )

    def most_blocks(self, table: BlockTable) -> int:
        """Blocks that one of the tables is taken to hold at most, where a whole prompt is to fit."""
        if table.window is None or table.has_states or self.step_tokens is None:
            return UNLIMITED
        return most_window_blocks(table.window, self.step_tokens, self.most_tokens, self.block_tokens)

    def _taken_bytes(
        self, table: BlockTable, found: Sequence[Hashable], num_tokens: int, is_whole: bool, view: LedgerView
    ) -> int:
        """What a table of so many tokens takes of what is free, with blocks that are found and nobody holds."""
        size, wanted = self.block_tokens, -(-num_tokens // self.block_tokens)
        if is_whole:
            wanted = min(wanted, self.most_blocks(table))
        left = table.left(len(found) * size, size)
        num_idle = sum(not view.is_held(table.name(key)) for key in found[left:])
        return (table.num_new(max(left, len(found)), wanted) + num_idle) * view.block_bytes(table.area)

    def appended(
        self,
        seq: int,
        keys: Sequence[Hashable],
        num_tokens: int,
        view: LedgerView,
        order: EvictionOrder,
        stops: Stops = NO_STOPS,
    ) -> Plan:
        """What appends tokens, takes the blocks that they need, and names those that they fill."""
        used, size = view.num_used(seq), self.block_tokens
        capacity = -(-(used + num_tokens) // size) * size
        fills = full_blocks(used, size) < full_blocks(used + num_tokens, size)
        if capacity <= view.capacity(seq) and not fills and len(self.tables) == 1:
            return append_plan(seq, num_tokens)
        ops: list[Operation] = []
        need_bytes = 0
        for table in self.tables:
            num_new = table.num_new(view.capacity(seq, table.area) // size, capacity // size)
            if num_new > 0:
                ops.append(Reserve(seq, capacity, table.area))
                need_bytes += num_new * view.block_bytes(table.area)
        ops += [Append(seq, num_tokens, table.area) for table in self.tables]
        for table in self.tables:
            for number in self._named(table, used, used + num_tokens, len(keys), stops):
                ops.append(Publish(seq, table.name(keys[number]), (number + 1) * size, table.area))
        return (*self._dropped(need_bytes - view.free_bytes(), view, order), *ops)

    def _named(self, table: BlockTable, before: int, after: int, num_keys: int, stops: Stops) -> Iterable[int]:
        """Numbers of the blocks that get names as a sequence goes from so many tokens to others."""
        size = self.block_tokens
        past = min(full_blocks(after, size), num_keys)
        if not table.has_states:
            full = range(full_blocks(before, size), past)
            if table.window is None or not self.keeps_some:
                return full
            by = stops.prompt, stops.junction, self.window_interval, table.window, size
            return (number for number in full if is_window_kept(number, *by))
        is_named = is_checkpoint(after, stops.prompt, stops.junction, self.state_interval, size)
        return range(past - (is_named and past * size == after), past)

    def _dropped(
        self,
        lacking_bytes: int,
        view: LedgerView,
        order: EvictionOrder,
        reused: Collection[Hashable] = (),
        stored: DraftStored | None = None,
    ) -> Iterator[Operation]:
        """What makes so much room: blocks that nobody holds, in an order; nothing, if not enough.

        Args:
            lacking_bytes: the room; not above 0: there is enough.
            view: the ledger.
            order: in which they go.
            reused: names that are taken over before, of one table.
            stored: what tiers keep after what is planned before it; None: nothing is.
        """
        kept_bytes = sum(not view.is_held(key) for key in reused) * view.block_bytes()
        if not 0 < lacking_bytes <= view.idle_bytes() - kept_bytes:
            return
        stored = stored or view.stored()
        for key in order.going(view, reused):
            named = view.named(key)
            yield from self.tiers.evicted(named, stored)
            yield Drop(key)
            lacking_bytes -= view.block_bytes(named.area)
            if lacking_bytes <= 0:
                return

    def left(self, seq: int, view: LedgerView) -> Plan:
        """What gives back the blocks that windows have left."""
        if len(self.tables) == 1:
            return NOTHING
        ops: list[Operation] = []
        for table in self.tables[1:]:
            used = view.num_used(seq, table.area)
            num_left = table.left(used, self.block_tokens)
            if num_left > view.num_left(seq, table.area):
                ops.append(Keep(seq, Rule(recent=used - num_left * self.block_tokens), table.area))
        return tuple(ops)
