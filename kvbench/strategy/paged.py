"""Paging: blocks of a shared pool, a block table a sequence."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

from kvbench.checks import check_bound, check_flag, check_int, check_one_of
from kvbench.engine.prefixes import full_blocks, most_hit_blocks
from kvbench.engine.scheduling import promised_slots
from kvbench.ledger import LedgerView, Limits
from kvbench.plan.area import STAGING_TOKENS, Area, Blocks, Cast, Format, Native
from kvbench.plan.ops import NOTHING, Drop, Fork, Plan, Publish, Reserve, Reuse
from kvbench.strategy.base import IntegerRule, Strategy, append_in_units, constant, derived, in_units
from kvbench.workload.request import Session

_, KEEP = WINDOW_BLOCKS = ("free", "keep")


@dataclass(frozen=True, kw_only=True)
class Paged(Strategy):
    """Take blocks from a pool that all sequences share; samples of one prompt share its blocks.

    At most one block of a sequence is partly empty, and nothing is copied but a shared block that a sequence writes to.
    Attention reads a gather of the blocks.

    Args:
        block_size: tokens of a block, > 0, a divisor of 1,024.
        pool_tokens: tokens of the pool, a multiple of block_size, allocated at the first use; None: all of the run's
            budget (in tensors, no more than its requests can fill).
        window_blocks: "free": layers with a window or in chunks have tables of their own, and give back blocks that it
            has left, as vLLM's hybrid manager does; "keep": all layers hold the same blocks, as they do where there are
            no such layers; None: free, and keep in a fleet, which has no other, and whose header says so.
        format: dtype of eight bits that K and V are cast to as they come, fp8_e4m3, fp8_e5m2 or int8; None: they are
            held as the model gives them.
        prefix_caching: keep blocks, named by what they and all before them hold, for later requests that begin alike:
            a request takes over the longest chain of its full blocks that is there; where the pool is full, blocks that
            nobody holds go, the least recently used first. None: as the engine does, and not without one.
        scale: what they are divided by before, a number, or "tensor" or "head" (see `Fp8`); 1 without a format.
    Raises:
        ValueError: a parameter is out of its range.
    Source: Kwon et al. 2023, arXiv:2309.06180, sections 4.1 to 4.4; of windows, vLLM's hybrid KV cache manager; of
        prefixes, its block pool.
    Departs: reads are gathered into a staging buffer and merged by their log-sum-exp, where vLLM's kernel follows the
        block table; preemption recomputes, it never swaps; where windows free blocks, samples share none.
    """

    block_size: int = 16
    pool_tokens: int | None = None
    window_blocks: str | None = None
    prefix_caching: bool | None = None
    format: str | None = None
    scale: float | str = 1.0

    def __post_init__(self) -> None:
        check_int("block_size", self.block_size, 1)
        check_bound("pool_tokens", self.pool_tokens)
        if self.window_blocks is not None:
            check_one_of("window_blocks", self.window_blocks, WINDOW_BLOCKS)
        if self.format is None and self.scale != 1:
            raise ValueError(f"scale is 1 where format is null, got {self.scale!r}")
        if STAGING_TOKENS % self.block_size:
            raise ValueError(f"block_size divides {STAGING_TOKENS}, got {self.block_size}")
        if self.pool_tokens is not None and self.pool_tokens % self.block_size:
            raise ValueError(f"pool_tokens is a multiple of block_size ({self.block_size}), got {self.pool_tokens}")

        if self.prefix_caching is not None:
            check_flag("prefix_caching", self.prefix_caching)
        _ = self._format  # refuses what is none

    @property
    def _format(self) -> Format:
        return Native() if self.format is None else Cast(self.format, self.scale)

    @derived
    def areas(self) -> tuple[Area, ...]:
        """Blocks of one pool."""
        layout = Blocks(self.block_size, self.pool_tokens, self.window_blocks != KEEP)
        return (Area(layout=layout, format=self._format),)

    @derived
    def lossless(self) -> bool:
        """Whether K and V are held as the model gives them."""
        return self.format is None

    def fitted(self, limits: Limits) -> Strategy:
        """The same strategy with a pool's size, and what becomes of windows' blocks. See `Strategy.fitted`."""
        if self.window_blocks is None and limits.keeps_windows:
            return self._with(window_blocks=KEEP).fitted(limits)
        if self.prefix_caching is None:
            return self._with(prefix_caching=limits.caches_prefixes).fitted(limits)
        return super().fitted(limits)

    @property
    def attends_all(self) -> bool:
        """It evicts nothing."""
        return True

    @property
    def integer_rule(self) -> IntegerRule:
        """Nothing at admission; whole blocks as they are required."""
        return IntegerRule(constant, (0,), in_units, (self.block_size,), None)

    @derived
    def _keys(self) -> dict[int, Sequence[Hashable]]:
        """Names of the full blocks of each sequence's tokens."""
        return {}

    def on_begin(self) -> None:
        """Forget the sequences of the repetition before."""
        self._keys.clear()

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Reserve nothing yet; with the first sequence's admission the pool is set aside."""
        self._keys[seq] = self._keys_of(session)
        return (Reserve(seq, 0),)

    def _keys_of(self, session: Session) -> Sequence[Hashable]:
        return session.keys.of(self.block_size) if self.prefix_caching and session.keys is not None else ()

    def has_room(self, session: Session, num_tokens: int, view: LedgerView) -> bool:
        """Whether blocks that are free, or that nobody holds, are as many as it takes. See `Strategy.has_room`."""
        keys = self._found(self._keys_of(session), num_tokens, view)
        num_taken = sum(not view.is_held(key) for key in keys)
        num_new = promised_slots(num_tokens, self.block_size) // self.block_size - len(keys)
        return num_new + num_taken <= view.free_blocks() + view.num_idle()

    def _found(self, keys: Sequence[Hashable], num_tokens: int, view: LedgerView) -> list[Hashable]:
        """Of the names of a sequence's blocks those that are there, without a gap from the first on."""
        most = keys[: most_hit_blocks(num_tokens, self.block_size)]
        return list(takewhile(view.has_name, most))

    def on_reuse(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Take over the longest chain of full blocks. See `Strategy.on_reuse`."""
        return tuple(Reuse(seq, key) for key in self._found(self._keys[seq], num_tokens, view))

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append where it fits, or take blocks first; those that it fills get their names."""
        plan = append_in_units(seq, num_tokens, self.block_size, view)
        if not self.prefix_caching:
            return plan
        used, size = view.num_used(seq), self.block_size
        filled = range(full_blocks(used, size), full_blocks(used + num_tokens, size))
        names = self._keys.get(seq, ())[filled.start : filled.stop]
        named = (Publish(seq, key, (filled.start + number + 1) * size) for number, key in enumerate(names))
        return (*self._dropped(plan, view), *plan, *named)

    def _dropped(self, plan: Plan, view: LedgerView) -> Plan:
        """What makes room for a plan's blocks: the least recently used that nobody holds; nothing, if not enough."""
        op = plan[0]
        num_new = (op.num_tokens - view.capacity(op.seq)) // self.block_size if isinstance(op, Reserve) else 0
        num_lacking = num_new - view.free_blocks()
        if not 0 < num_lacking <= view.num_idle():
            return NOTHING
        return tuple(Drop(key) for key in islice(view.idle(), num_lacking))

    def on_fork(self, seq: int, parent: int, num_tokens: int, view: LedgerView) -> Plan:
        """Share the parent's blocks; nothing, where layers may have given back what would be shared."""
        return NOTHING if view.frees_windows() else (Fork(parent, seq, num_tokens),)

    def on_finish(self, seq: int, view: LedgerView) -> Plan:
        """Let all blocks go; those that have names stay until their room is needed."""
        self._keys.pop(seq, None)
        return super().on_finish(seq, view)
