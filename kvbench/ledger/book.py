"""The ledger: it books every byte, refuses what cannot be done, and is the only thing that counts."""

from collections.abc import Mapping

from kvbench.ledger.accounts import Account, Holding, Receipt
from kvbench.ledger.booking import Draft
from kvbench.ledger.declared import Declared
from kvbench.ledger.outcome import LedgerError
from kvbench.ledger.rows import book_rows
from kvbench.ledger.state import LedgerState
from kvbench.ledger.view import LedgerView
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import DEVICE, Area, Cast, Ring
from kvbench.plan.ops import Append, Keep, Plan, Rows, Truncate

ONE_AREA = (Area(),)


class Ledger(LedgerState):
    """Occupancy of device, host, disk and remote store, in bytes, by sequence.

    What reading needs on the device (staging buffers) and the pools that blocks come from are held from the first
    reserve on, until the ledger's end: `workspace_bytes` counts as allocated, of a pool only the blocks handed out do.

    Args:
        geometry: bytes of a token.
        budget_bytes: the most that may be held on the device at any time, the double buffer of a resize and whole pools
            included; None: no limit.
        areas: how every sequence's slots live, oldest tokens first.
        num_rows: rows of every sequence's batch, > 0.
        declared: what whoever plans says of itself, and is held to; None: nothing.
        stores: bytes of the tiers below the device that keep copies of named blocks; None: there are none.
    Raises:
        ValueError: the budget is not positive, two areas have one name, or the geometry does not go into an area's
            format or layout.
    """

    def __init__(
        self,
        geometry: KVGeometry,
        budget_bytes: int | None = None,
        areas: tuple[Area, ...] = ONE_AREA,
        num_rows: int = 1,
        declared: Declared | None = None,
        stores: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(geometry, budget_bytes, areas, num_rows, declared, stores or {})
        self.view = LedgerView(self)

    def open(self, seq: int) -> None:
        """Begin a sequence that holds nothing yet.

        Args:
            seq: its number; not one that is open.
        Raises:
            LedgerError: the sequence is open already.
        """
        if seq in self.accounts:
            raise LedgerError(f"sequence {seq} is open already")
        holdings = {name: Holding(cost) for name, cost in self.costs.items()}
        seen = [0] * self.num_chains if self.num_chains > 1 else []
        self.accounts[seq] = Account(holdings, seen=seen, number=self.num_opened)
        self.num_opened += 1

    def book(self, plan: Plan) -> Receipt | None:
        """Book a plan whole, or nothing of it.

        Returns:
            The receipt; None for an empty plan and for the common cases, one append that fits, and a full ring's next
            token: they move nothing.
        Raises:
            LedgerError: an operation cannot be done.
            OutOfMemory: the plan's peak is over the budget, or a pool is exhausted.
        """
        if type(plan) is not tuple:
            raise LedgerError(f"a plan is a tuple of operations, got {plan!r}")
        if not plan:
            return None
        last = plan[-1]
        if type(last) is Append:
            if self.num_chains == 1 and self._is_booked(plan, last):
                return None
            if last.area == self.follower and self.num_leading == 1 and self._is_followed(plan, last):
                return None
        if len(plan) == 1 and type(last) is Rows:
            return book_rows(self, last)
        draft = Draft(self)
        for op in plan:
            if self.declared is not None:
                self.declared.check_planned(op)
            draft.apply(op)
        return draft.commit()

    def crop(self, op: Truncate) -> Receipt:
        """Book that who made the cache takes its newest tokens back, whatever the strategy is declared to be.

        Raises:
            LedgerError: they are not all there as they were.
        """
        draft = Draft(self)
        draft.apply(op)
        return draft.commit()

    def _is_booked(self, plan: Plan, append: Append) -> bool:
        """Book one of the common cases, which end in an append, and say whether it was one."""
        account = self.accounts.get(append.seq) or self.account(append.seq, append)
        held, num_tokens = account.holdings.get(append.area), append.num_tokens
        if held is None or not held.is_private or num_tokens < 1:
            return False
        cost = held.cost
        alters = cost.area.alters
        if alters and not self._may_cast(cost.area):
            return False
        if len(plan) == 1:
            used = held.num_used
            if num_tokens > held.room or (cost.is_bounded and cost.is_passed(used, num_tokens)):
                return False
            held.num_used = used + num_tokens
            account.num_altered += num_tokens * alters
            if cost.area.tier == DEVICE:
                if cost.is_bounded:
                    self.used_bytes += cost.bytes_of(held.num_used) - cost.bytes_of(used)
                else:
                    self.used_bytes += num_tokens * cost.unit_bytes
        elif not self._is_ring_step(plan, held, append):
            return False
        else:
            account.num_altered += num_tokens
        account.num_seen += num_tokens
        return True

    def _is_followed(self, plan: Plan, append: Append) -> bool:
        """As `_is_booked`, of a common case and what follows it."""
        account, first = self.accounts.get(append.seq), plan[-2] if len(plan) > 1 else None
        if account is None or type(first) is not Append or self.counts_altered(self.costs[append.area]):
            return False
        held, num_tokens = account.holdings[append.area], append.num_tokens
        is_same = (first.seq, first.num_tokens) == (append.seq, num_tokens)
        if not is_same or num_tokens > held.room or held.cost.is_passed(held.num_used, num_tokens):
            return False
        if not self._is_booked(plan[:-1], first):
            return False
        before, held.num_used = held.num_used, held.num_used + num_tokens
        self.used_bytes += held.cost.bytes_of(held.num_used) - held.cost.bytes_of(before)
        account.seen = [each + num_tokens for each in account.seen]
        return True

    def _may_cast(self, area: Area) -> bool:
        """Whether tokens that come to an area are cast, and nothing else; and nobody has declared that they are not."""
        return isinstance(area.format, Cast) and area.attended and not (self.declared and self.declared.lossless)

    def _is_ring_step(self, plan: Plan, held: Holding, append: Append) -> bool:
        keep, layout = plan[0], held.cost.area.layout
        if len(plan) != 2 or type(keep) is not Keep or type(layout) is not Ring or held.busy:  # noqa: PLR2004
            return False
        if self.declared is not None and self.declared.attends_all:
            return False
        rule = keep.rule
        fits = held.num_used == held.capacity == rule.first + rule.recent + append.num_tokens
        same = keep.seq == append.seq and keep.area == append.area
        return fits and same and rule.first == layout.num_pinned and not rule.top
