"""What every strategy is: hooks that answer with plans."""

from collections.abc import Callable, Mapping
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeVar

from kvbench.ledger import UNLIMITED, Declared, Ledger, LedgerView, Limits
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import SIGNALS, Area
from kvbench.plan.ops import NOTHING, Plan, Release, Reserve, append_plan
from kvbench.workload.request import Session

T = TypeVar("T")

if TYPE_CHECKING:

    def derived(of: Callable[[Any], T]) -> T:
        """What a strategy derives from its parameters, once; it stands in for an attribute, and is typed as one."""
else:
    derived = cached_property


class CapacityExceeded(Exception):
    """A sequence is longer than the strategy can hold; an outcome, not a crash.

    Args:
        num_tokens: tokens that the sequence would have held.
        maximum: tokens that the strategy can hold.
    """

    def __init__(self, num_tokens: int, maximum: int) -> None:
        self.num_tokens = num_tokens
        self.maximum = maximum
        super().__init__(f"the sequence comes to {num_tokens:,} tokens; the strategy holds at most {maximum:,}")


def all_at_once(num_tokens: int, used: int, *by: float) -> int:
    """Tokens of an append that the next step takes: all."""
    return num_tokens


def all_stay(used: int, *others: float) -> int:
    """Slots that stay: all."""
    return used


def same_capacity(capacity: int, *others: float) -> int:
    """Capacity, or what follows from it: as it is."""
    return capacity


class Turns(NamedTuple):
    """What a strategy does with the slots of a sequence's area main when they are too many, as functions of integers.

    What leaves goes to the end of the area before main, where there is one, and is evicted where there is none. What
    that area has no room for goes to the one before it, or is evicted, the oldest first: `passed_on` says how many.

    Args:
        full: slots that are in use before something else happens than an append, of (capacity, *by).
        before: slots that stay before tokens are appended that come to more than `full`, of (used, new tokens, tokens
            held, *by); all where capacity grows instead.
        after: slots that stay after attention, of (used, tokens appended one by one since several came, tokens held,
            *by).
        rest: capacity after that, of (capacity, slots that stay, *by); as it is, or less.
        by: their further arguments.
        at_once: tokens of an append that the next step takes, of (new tokens, used, *by).
        most_aside: slots that the area before main holds at most; UNLIMITED: as many as come.
        aside_unit: of these, how many leave it together.
        num_pinned: slots of an area before all these, which the first tokens go to and stay in: those of the area main
            count from them on.
        of_append: slots that stay after several tokens came, of (used, new tokens, *by); `after` is asked of these.
        interval: tokens held from one time that `after` is asked, or was and there was no memory, to the next; 0: it is
            asked after each append.
        by_norm: whether all K and V are read to say which stay.
    """

    full: Callable[..., int]
    before: Callable[..., int]
    after: Callable[..., int]
    rest: Callable[..., int]
    by: tuple[int | float, ...]
    at_once: Callable[..., int] = all_at_once
    most_aside: int = UNLIMITED
    aside_unit: int = 1
    num_pinned: int = 0
    of_append: Callable[..., int] = all_stay
    interval: int = 0
    by_norm: bool = False


class IntegerRule(NamedTuple):
    """A strategy's decisions as plain functions of integers: those that it calls itself, for others to compile.

    Args:
        admitted: slots to reserve at admission, of (prompt tokens, further tokens that the cache will be given,
            *admitted_by); 0 for none.
        admitted_by: its further arguments.
        grown: capacity after growth, of (capacity, slots required, *grown_by), asked where an append does not fit.
        grown_by: its further arguments.
        max_tokens: tokens that a sequence can hold; None: as many as there is memory for.
        turns: how slots are reduced; None where all stay.
    """

    admitted: Callable[..., int]
    admitted_by: tuple[int | float, ...]
    grown: Callable[..., int]
    grown_by: tuple[int | float, ...]
    max_tokens: int | None
    turns: Turns | None = None


class Strategy:
    """The base of all strategies. Each hook has the least default; `on_append` has none.

    A strategy keeps no count of slots or bytes: it reads them from the view. What it does keep a sequence (such as
    a history) it drops in `on_finish`, which is also called when a sequence is preempted. kvbench's own are frozen
    dataclasses, whose fields are their parameters; a plain class will do.
    """

    areas: tuple[Area, ...] = (Area(),)
    """How the slots of its sequences live, oldest tokens first; new tokens go to the area main.

    Where layers have a window or chunks, and these areas are such as do not hold one, they are of the other layers: it
    decides over those, and its budget is theirs. What follows beside them is no part of its plans.
    """

    lossless: bool = True
    """Whether attention reads every token, unchanged."""

    reference: bool = False
    """Whether it knows the future, or is there to compare with: shown, never chosen."""

    num_first: int = 0
    """Tokens at the start of a sequence that it never evicts."""

    recomputes: ClassVar[bool] = False
    """Whether each step computes K and V of the whole sequence anew, so that `on_append` gets all its tokens."""

    decides_by: ClassVar[str] = "more than a sequence's capacity and length"
    """What it decides by, where it has no integer rule; for the message of those who need one."""

    max_tokens: int = UNLIMITED
    """Tokens of a sequence that it can hold, by what it was told; UNLIMITED: as many as there is memory for."""

    @property
    def tier_bytes(self) -> Mapping[str, int]:
        """Bytes of the tiers below the device that keep copies of its named blocks, the next below first."""
        return {}

    pooled_tokens: int | None = None
    """Tokens of a sequence that its pool of blocks holds at most; None: all."""

    def is_lossless(self, geometry: KVGeometry) -> bool:
        """Whether attention reads every token of such a model, unchanged: none where its cache is of another dtype."""
        return self.lossless if geometry.held_dtypes <= {geometry.dtype} else False

    def facts(self, geometry: KVGeometry) -> dict[str, object]:
        """What a summary's row says of it under a model, by column."""
        return {"lossless": self.is_lossless(geometry), "reference": self.reference, "eviction": ""}

    @property
    def attends_all(self) -> bool:
        """Whether attention reads every token, unchanged or rounded: none is evicted or moved out of its sight."""
        return self.lossless

    @property
    def integer_rule(self) -> IntegerRule | None:
        """All that it decides, as functions of integers; None where they do not say all."""
        return None

    def within(self, budget_tokens: int, num_tokens: int) -> "Strategy | None":
        """The same strategy with a budget of its own: after an append and its reduction, at most so many attended.

        Other parameters stay as they are, or keep their proportion; each strategy says what its budget is.

        Args:
            budget_tokens: tokens that attention may read of a sequence, > 0.
            num_tokens: of the whole sequence, for a strategy that keeps a fraction of them, > 0.
        Returns:
            Another strategy; None where it bounds nothing that attention reads.
        Raises:
            ValueError: the budget is less than it can do with.
        """
        return None

    def ledger(self, geometry: KVGeometry, budget_bytes: int | None = None, num_rows: int = 1) -> Ledger:
        """Books for its sequences, which hold it to what it declares.

        Args:
            geometry: bytes of a token.
            budget_bytes: the most that may be held on the device at any time; None: no limit.
            num_rows: rows of every sequence's batch, > 0.
        Raises:
            ValueError: what it declares is nothing that can be, or the geometry does not go into its areas.
        """
        declared = Declared(type(self).__name__, self.is_lossless(geometry), self.attends_all, self.recomputes)
        return Ledger(geometry, budget_bytes, self.areas, num_rows, declared, self.tier_bytes)

    def fitted(self, limits: Limits) -> "Strategy":
        """The same strategy with all decided that was left to the run: a pool's size, a capacity.

        Raises:
            ValueError: the run does not say what is needed for it.
        """
        areas = limits.sized(self.areas, self.pooled_tokens)
        return self if areas == self.areas else self._with(areas=areas)

    def fitted_to_serve(self, limits: Limits) -> "Strategy":
        """The same, for requests that may share: refused where it is to keep blocks that nobody names.

        Raises:
            ValueError: as `fitted`, or tiers below the device are left without what they keep.
        """
        fitted = self.fitted(limits)
        left = [tier for tier in self.tier_bytes if tier not in fitted.tier_bytes]
        if left:
            raise ValueError(
                f"{left[0]}_bytes keeps blocks that have names, and nobody names any here (prefix_caching is false, or "
                "requests do not say what they share): set prefix_caching to true where they do, or it to 0"
            )
        return fitted

    def _with(self, **decided: object) -> Self:
        """The same strategy with other values; what it derives from them (cached properties) is derived anew."""
        made, kind = copy(self), type(self)
        for name in vars(self):
            if isinstance(getattr(kind, name, None), cached_property):
                del vars(made)[name]
        vars(made).update(decided)
        return made

    def on_begin(self) -> None:
        """Forget everything: a new repetition begins."""

    @property
    def signals(self) -> tuple[str, ...]:
        """What attention must tell it: mass, votes or accesses."""
        return tuple(SIGNALS[type(area.score)] for area in self.areas if area.score is not None)

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Plan what a new sequence needs before its first token. Only an oracle may look at the session's end."""
        return NOTHING

    def at_once(self, seq: int, num_tokens: int, view: LedgerView) -> int:
        """How many of an append's tokens the next step takes, at least 1; the rest come in further steps.

        None, where steps of a prompt are cut, and so many do not reach the next place where one may end.
        """
        return num_tokens

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Plan room for new tokens, and their append; once a step, for all layers.

        It remembers nothing: where memory does not last it is asked again. `on_attended` follows an append that was
        made.

        Raises:
            CapacityExceeded: the sequence would be longer than the strategy can hold.
        """
        raise NotImplementedError

    def on_fork(self, seq: int, parent: int, num_tokens: int, view: LedgerView) -> Plan:
        """Plan to take the first tokens over from a live sequence that has them; nothing where none are shared."""
        return NOTHING

    def keeps_prefixes(self, by_engine: bool) -> bool:
        """Whether blocks stay for later requests that begin alike, so that each turn is a request of its own.

        Args:
            by_engine: whether the engine does so where it is left to it.
        """
        return False

    @property
    def cuts_prompts(self) -> bool:
        """Whether steps of a prompt end only where `at_once` says, what is computed again being part of it."""
        return False

    def on_pass(self, clock_ns: int) -> None:
        """A step of all that are live begins, at a moment of the run's clock."""

    def on_wait(self, seq: int, session: Session, num_tokens: int, view: LedgerView) -> None:
        """A session that is to have a new sequence, and was in none before, begins to wait in this step.

        Args:
            seq: the sequence's number.
            session: what it is of.
            num_tokens: that it is to compute before its next answer.
            view: the ledger.
        """

    def can_begin(self, seq: int, session: Session, num_tokens: int, num_now: int, view: LedgerView) -> bool:
        """Whether a session that is not open can be, as a sequence, in this step. Arguments as of `has_room`."""
        return True

    def has_room(self, session: Session, num_tokens: int, num_now: int, view: LedgerView) -> bool:
        """Whether a pool of blocks has room for so many of a session's tokens, all that it can give back given back.

        Args:
            session: one that is not open.
            num_tokens: its first ones, with those that it takes over.
            num_now: that the next step can compute, at most.
            view: the ledger.
        """
        return True

    def on_reuse(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Plan to take over blocks of a sequence's first tokens that are there already; nothing where none are.

        Args:
            seq: a sequence that was admitted, and holds nothing.
            num_tokens: tokens that it is to compute before its next answer, the last of which is never taken over.
            view: the ledger.
        """
        return NOTHING

    def on_step(self, seq: int, view: LedgerView) -> Plan:
        """Plan what goes before a sequence's next step, whether there is room for that or not; once a step."""
        return NOTHING

    def on_attended(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Plan what follows attention.

        Where there is no memory to do it in, nothing is done, and it is asked for again after the next step.
        """
        return NOTHING

    def on_pressure(self, seq: int, need_bytes: int, view: LedgerView) -> Plan:
        """Plan to give memory back, so that need_bytes come under the budget; nothing where there is none to give.

        Args:
            seq: the scheduler's victim, which gives up all that it holds where nothing is offered: the sequence that
                has been idle longest, else the one admitted last.
            need_bytes: what is lacking.
            view: the ledger.
        """
        return NOTHING

    def on_finish(self, seq: int, view: LedgerView) -> Plan:
        """Plan the end of a sequence."""
        return (Release(seq),)

    def on_complete(self, session: Session) -> None:
        """Learn from a session that was completed; called once for each, after `on_finish`."""


def resize_and_append(seq: int, capacity: int, num_tokens: int) -> Plan:
    """The plan of an append that does not fit: reserve, then append."""
    return (Reserve(seq, capacity), *append_plan(seq, num_tokens))


def constant(num_prompt_tokens: int, num_output_tokens: int, num_slots: int) -> int:
    """Slots at admission, whatever the request."""
    return num_slots


def as_required(capacity: int, required: int) -> int:
    """Capacity after growth: what is required."""
    return required


def moved_at_once(num_leaving: int, num_aside: int, most_aside: int, unit: int) -> int:
    """Slots of so many that leave an area for one that holds others, which go at once: what one is emptied for."""
    return min(num_leaving, most_aside - num_aside % unit)


def passed_on(num_aside: int, num_moved: int, most_aside: int, unit: int) -> int:
    """Slots that leave an area before so many come to it: what is too much, in whole units."""
    return min(rounded_up(max(num_aside + num_moved - most_aside, 0), unit), num_aside)


def in_units(capacity: int, required: int, unit: int) -> int:
    """Capacity after growth by whole units: chunks, blocks, or so many slots."""
    return rounded_up(required, unit)


def append_in_units(seq: int, num_tokens: int, unit: int, view: LedgerView) -> Plan:
    """The plan of an append that grows by whole units where it does not fit: chunks, blocks, or so many slots."""
    required = view.num_used(seq) + num_tokens
    if required <= view.capacity(seq):
        return append_plan(seq, num_tokens)
    return resize_and_append(seq, in_units(view.capacity(seq), required, unit), num_tokens)


def rounded_up(num_tokens: int, multiple: int) -> int:
    """The least multiple that is no less than num_tokens."""
    return -(-num_tokens // multiple) * multiple
