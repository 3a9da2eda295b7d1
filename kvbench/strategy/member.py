"""A strategy as one of several that a sequence lives under in turn: its areas carry its name."""

from collections.abc import Collection, Hashable, Iterator
from dataclasses import replace
from functools import lru_cache

from kvbench.ledger import LedgerView
from kvbench.ledger.names import Idle, Named
from kvbench.ledger.stored import DraftStored
from kvbench.plan.area import Area, Contiguous, Ring
from kvbench.plan.ops import MAIN, Append, Keep, Move, Operation, Plan, Reserve
from kvbench.strategy.base import Strategy


class Member:
    """A strategy with areas of its own beside those of others.

    Args:
        name: what its areas' names begin with.
        strategy: what plans, knowing of no others.
        positions: whether all slots keep positions; a ring, which cannot, becomes contiguous.
    """

    def __init__(self, name: str, strategy: Strategy, *, positions: bool) -> None:
        self.name = name
        self.strategy = strategy
        self.prefix = f"{name}."
        self.areas = tuple(self._own(area, positions) for area in strategy.areas)

    def _own(self, area: Area, positions: bool) -> Area:
        layout = Contiguous() if positions and isinstance(area.layout, Ring) else area.layout
        return replace(area, name=self.prefix + area.name, layout=layout, positions=positions)

    def plan(self, plan: Plan) -> Plan:
        """Its plan, in its own areas."""
        return _renamed(tuple(plan), self.prefix)

    def view(self, view: LedgerView) -> "MemberView":
        """The ledger as it sees it."""
        return MemberView(view, self)


class MemberView(LedgerView):
    """A view of the ledger in which one member's areas have the names that its strategy gave them.

    Tokens that others hold have not come yet: a lossless member has seen what it holds, a lossy one all but those.

    Args:
        view: of the ledger.
        member: who looks.
    """

    __slots__ = ("_member", "_prefix", "_view")

    def __init__(self, view: LedgerView, member: Member) -> None:
        self._view = view
        self._member = member
        self._prefix = member.prefix

    def num_used(self, seq: int, area: str = MAIN) -> int:
        """See `LedgerView.num_used`."""
        return self._view.num_used(seq, self._prefix + area)

    def capacity(self, seq: int, area: str = MAIN) -> int:
        """See `LedgerView.capacity`."""
        return self._view.capacity(seq, self._prefix + area)

    def allocated(self, seq: int, area: str = MAIN) -> int:
        """See `LedgerView.allocated`."""
        return self._view.allocated(seq, self._prefix + area)

    def is_busy(self, seq: int, area: str = MAIN) -> bool:
        """See `LedgerView.is_busy`."""
        return self._view.is_busy(seq, self._prefix + area)

    def next_capacity(self, seq: int, area: str = MAIN) -> int:
        """See `LedgerView.next_capacity`."""
        return self._view.next_capacity(seq, self._prefix + area)

    def frees_windows(self, area: str = MAIN) -> bool:
        """See `LedgerView.frees_windows`."""
        return self._view.frees_windows(self._prefix + area)

    def has_name(self, key: Hashable) -> bool:
        """See `LedgerView.has_name`."""
        return self._view.has_name(key)

    def is_held(self, key: Hashable) -> bool:
        """See `LedgerView.is_held`."""
        return self._view.is_held(key)

    def idle(self, but: Collection[Hashable] = ()) -> Iterator[Hashable]:
        """See `LedgerView.idle`."""
        return self._view.idle(but)

    def idle_blocks(self, but: Collection[Hashable] = ()) -> Iterator[Idle]:
        """See `LedgerView.idle_blocks`."""
        return self._view.idle_blocks(but)

    def idle_bytes(self) -> int:
        """See `LedgerView.idle_bytes`."""
        return self._view.idle_bytes()

    def named(self, key: Hashable) -> Named:
        """See `LedgerView.named`; its area as the member calls it."""
        named = self._view.named(key)
        return named._replace(area=named.area.removeprefix(self._prefix))

    def stored(self) -> DraftStored:
        """See `LedgerView.stored`."""
        return self._view.stored()

    def free_bytes(self, area: str = MAIN) -> int:
        """See `LedgerView.free_bytes`."""
        return self._view.free_bytes(self._prefix + area)

    def block_bytes(self, area: str = MAIN) -> int:
        """See `LedgerView.block_bytes`."""
        return self._view.block_bytes(self._prefix + area)

    def num_left(self, seq: int, area: str = MAIN) -> int:
        """See `LedgerView.num_left`."""
        return self._view.num_left(seq, self._prefix + area)

    def num_leaving(self, seq: int, area: str = MAIN) -> int:
        """See `LedgerView.num_leaving`."""
        return self._view.num_leaving(seq, self._prefix + area)

    def num_seen(self, seq: int) -> int:
        """Tokens that have come to the member so far."""
        held = self.num_held(seq)
        if self._member.strategy.lossless:
            return held
        return self._view.num_seen(seq) - self._view.num_held(seq) + held

    def num_held(self, seq: int) -> int:
        """Tokens that the member holds."""
        view = self._view
        return sum(view.num_used(seq, area.name) - view.num_leaving(seq, area.name) for area in self._member.areas)

    def num_altered(self, seq: int) -> int:
        """See `LedgerView.num_altered`."""
        return self._view.num_altered(seq)

    def num_attended(self, seq: int) -> int:
        """See `LedgerView.num_attended`."""
        return self._view.num_attended(seq)

    def device_slots(self, seq: int) -> tuple[int, int, int]:
        """See `LedgerView.device_slots`."""
        return self._view.device_slots(seq)

    def by_group(self, seq: int) -> dict[tuple[str, str], int]:
        """See `LedgerView.by_group`; of the member's areas alone."""
        own = {area.name: area.name.removeprefix(self._prefix) for area in self._member.areas}
        held = self._view.by_group(seq)
        return {(own.get(area, area), group): size for (area, group), size in held.items() if not area or area in own}

    def after(self, plan: Plan) -> "MemberView":
        """See `LedgerView.after`; the plan is the member's."""
        return MemberView(self._view.after(self._member.plan(plan)), self._member)

    def room(self, seq: int, area: str = MAIN) -> int:
        """See `LedgerView.room`."""
        return self._view.room(seq, self._prefix + area)

    def room_beside(self, seq: int, capacity: int, area: str = MAIN) -> int:
        """See `LedgerView.room_beside`."""
        return self._view.room_beside(seq, capacity, self._prefix + area)

    def is_open(self, seq: int) -> bool:
        """See `LedgerView.is_open`."""
        return self._view.is_open(seq)


@lru_cache(maxsize=4096)
def _renamed(plan: Plan, prefix: str) -> Plan:
    return tuple(_renamed_op(op, prefix) for op in plan)


def _renamed_op(op: Operation, prefix: str) -> Operation:
    match op:
        case Reserve(background=False) | Append() | Keep():
            return replace(op, area=prefix + op.area)
        case Move(background=False):
            return replace(op, src=prefix + op.src, dst=prefix + op.dst)
        case _:
            raise ValueError(
                "a strategy that takes turns with others reserves, appends, keeps and moves, all in the step; "
                f"it planned {op}"
            )
