"""The article's chatbot: another strategy for each kind of conversation, and a move when the kind changes."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Self

from kvbench.checks import check_int, check_share
from kvbench.ledger import UNLIMITED, LedgerView, Limits, OutOfMemory
from kvbench.plan.area import Area, Blocks
from kvbench.plan.ops import Append, Move, Operation, Plan, Release, Reserve, Rule
from kvbench.strategy.async_growth import Ahead
from kvbench.strategy.base import CapacityExceeded, Strategy, derived
from kvbench.strategy.classifying import CHAT, CODE, CREATIVE, DOCUMENT, Rules, settled_class
from kvbench.strategy.compressed import Compressed
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.hierarchical import Hierarchical
from kvbench.strategy.member import Member
from kvbench.strategy.predictive import Predictive
from kvbench.workload.request import Session


@dataclass(frozen=True, slots=True)
class Switch:
    """A move of what a conversation holds from one class's strategy to another's.

    Args:
        seq: the sequence.
        num_seen: tokens appended before.
        source: the class that it was.
        target: the class that it is.
        lossless: whether all those tokens are still held, unchanged; where not, only what was left could move.
    """

    seq: int
    num_seen: int
    source: str
    target: str
    lossless: bool


@dataclass(slots=True)
class _Conversation:
    """What is known of a sequence: its request, its class, the turns that have begun, and a switch that is planned."""

    session: Session
    current: str
    num_begun: int
    next_start: int
    planned: Switch | None = None


@dataclass(frozen=True, kw_only=True)
class Adaptive(Strategy):
    """Classify a conversation at each turn; where its class changes and stays so, move its tokens to another strategy.

    Where all messages have a text, it is code if two different code words (def, function, class, import, while) stand
    in the last messages, creative writing if two of story, character, plot, imagine and create do, a long document if
    they are long, and else short chat. Where one has none, token counts decide between document, creative writing (long
    answers) and chat. Only turns that have begun are looked at. `switches` lists the switches made, and of each whether
    it was lossless.

    Args:
        code: the strategy for code.
        creative_writing: the strategy for creative writing.
        long_document: the strategy for long documents.
        short_chat: the strategy for everything else.
        window_messages: last messages that count, > 0.
        document_characters: characters of those above which it is a long document, > 0.
        document_tokens: tokens of those above which it is a long document where there is no text, > 0.
        writing_share: answers' share of the tokens of finished turns above which it is creative writing where there is
            no text, above 0, at most 1.
        patience: turns in a row that a class must win before it is switched to, > 0.
        min_tokens: tokens before the first switch and between two, >= 0.
    Raises:
        ValueError: a parameter is out of its range, or what a strategy holds could not move to the others.
    Source: the article, ChatbotKVCacheManager.
    Departs: words are matched whole, two different ones are needed, and "for" is none of them, since all English has
        it; a class has to last before it is switched to; tokens move, so that none is held twice; they arrive as if
        they were appended, to be reduced or tiered as those, and a move that does not fit is put off to the next turn.
        Where a strategy keeps positions beside its slots, all do, and a fast tier closes ranks where it would be a
        ring. Counts of tokens do not tell code from other text.
    """

    code: Strategy = field(default_factory=lambda: Dynamic(growth_factor=2.0))
    creative_writing: Strategy = field(default_factory=lambda: Compressed(kept_fraction=0.8))
    long_document: Strategy = field(default_factory=Hierarchical)
    short_chat: Strategy = field(default_factory=lambda: Predictive(history_window=5, initial_capacity=256))
    window_messages: int = 10
    document_characters: int = 2000
    document_tokens: int = 500
    writing_share: float = 0.8
    patience: int = 2
    min_tokens: int = 256

    def __post_init__(self) -> None:
        for name, strategy in self._strategies.items():
            _check_member(name, strategy)
        for name in ("window_messages", "document_characters", "document_tokens", "patience"):
            check_int(name, getattr(self, name), 1)
        check_share("writing_share", self.writing_share)
        check_int("min_tokens", self.min_tokens, 0)

    @property
    def _strategies(self) -> dict[str, Strategy]:
        """Each class's."""
        return {name: getattr(self, name) for name in (CODE, CREATIVE, DOCUMENT, CHAT)}

    @derived
    def _members(self) -> dict[str, Member]:
        positions = any(area.positions for strategy in self._strategies.values() for area in strategy.areas)
        return {name: Member(name, own, positions=positions) for name, own in self._strategies.items()}

    @derived
    def _rules(self) -> Rules:
        return Rules(**{each.name: getattr(self, each.name) for each in fields(Rules)})

    @derived
    def switches(self) -> list[Switch]:
        """Those made in this repetition."""
        return []

    @derived
    def _conversations(self) -> dict[int, _Conversation]:
        return {}

    @derived
    def areas(self) -> tuple[Area, ...]:
        """Those of all classes."""
        return tuple(area for member in self._members.values() for area in member.areas)

    @derived
    def lossless(self) -> bool:
        """Whether all classes' strategies are."""
        return all(strategy.lossless for strategy in self._strategies.values())

    @derived
    def reference(self) -> bool:
        """Whether a class's strategy is one."""
        return any(strategy.reference for strategy in self._strategies.values())

    @derived
    def num_first(self) -> int:
        """The most that a class's strategy never evicts."""
        return max(strategy.num_first for strategy in self._strategies.values())

    @derived
    def max_tokens(self) -> int:
        """What all classes' strategies can hold."""
        return min(strategy.max_tokens for strategy in self._strategies.values())

    def fitted(self, limits: Limits) -> Self:
        """The same strategy, each class's as the run has it. See `Strategy.fitted`."""
        return self._with(**{name: strategy.fitted(limits) for name, strategy in self._strategies.items()})

    @property
    def attends_all(self) -> bool:
        """Whether all classes' strategies do."""
        return all(strategy.attends_all for strategy in self._strategies.values())

    def on_begin(self) -> None:
        """Forget all conversations, and the switches."""
        self.switches.clear()
        self._conversations.clear()
        for member in self._members.values():
            member.strategy.on_begin()

    def on_admit(self, seq: int, session: Session, view: LedgerView) -> Plan:
        """Begin in the class of the first message."""
        first = session.turns[0]
        conversation = _Conversation(
            session, settled_class((first,), self._rules), 1, first.num_append_tokens + first.num_decode_steps
        )
        self._conversations[seq] = conversation
        return self._admitted(self._members[conversation.current], seq, session, view)

    @staticmethod
    def _admitted(member: Member, seq: int, session: Session, view: LedgerView) -> Plan:
        return member.plan(member.strategy.on_admit(seq, session, member.view(view)))

    def at_once(self, seq: int, num_tokens: int, view: LedgerView) -> int:
        """As many as both the class that is and the one that these tokens begin take."""
        current = self._conversations[seq].current
        while num_tokens > 1:
            takers = [self._members[name] for name in {current, self._wanted(seq, num_tokens, view)}]
            most = min(taker.strategy.at_once(seq, num_tokens, taker.view(view)) for taker in takers)
            if most == num_tokens:
                break
            num_tokens = most
        return num_tokens

    def _wanted(self, seq: int, num_tokens: int, view: LedgerView) -> str:
        """The class for so many new tokens: where they begin no turn, the one that it is."""
        conversation = self._conversations[seq]
        end = view.num_seen(seq) + num_tokens
        if end <= conversation.next_start:
            return conversation.current
        num_begun, _ = _begun(conversation, end)
        return settled_class(conversation.session.turns[:num_begun], self._rules)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """As the class's strategy; where a turn changes the class, all that is held moves first."""
        conversation = self._conversations[seq]
        conversation.planned = None
        wanted = self._wanted(seq, num_tokens, view)
        if wanted != conversation.current:
            plan = self._switched(seq, wanted, num_tokens, view)
            if plan:
                return plan
        member = self._members[conversation.current]
        return member.plan(member.strategy.on_append(seq, num_tokens, member.view(view)))

    def _switched(self, seq: int, target: str, num_tokens: int, view: LedgerView) -> Plan:
        """The plan to move and then append; none where it cannot be done now."""
        conversation, member = self._conversations[seq], self._members[target]
        try:
            plan, later = self._moved(seq, self._members[conversation.current], member, view)
            appended = member.plan(member.strategy.on_append(seq, num_tokens, member.view(later)))
            later.after(appended)
        except (CapacityExceeded, OutOfMemory):
            member.strategy.on_finish(seq, member.view(view))
            return ()
        is_lossless = not later.num_altered(seq)
        conversation.planned = Switch(seq, view.num_seen(seq), conversation.current, target, is_lossless)
        return (*plan, *appended)

    def _moved(self, seq: int, source: Member, target: Member, view: LedgerView) -> tuple[Plan, LedgerView]:
        """What moves all tokens, oldest first, as if each part of them were appended; and the view after it."""
        plan: list[Operation] = []
        strategy = target.strategy

        def then(ops: Plan) -> None:
            nonlocal view
            view = view.after(ops)
            plan.extend(ops)

        then(self._admitted(target, seq, self._conversations[seq].session, view))
        for area in source.areas:
            while held := view.num_used(seq, area.name):
                count = strategy.at_once(seq, held, target.view(view))
                appended = target.plan(strategy.on_append(seq, count, target.view(view)))
                then(tuple(_arriving(appended, area.name, held)))
                then(target.plan(strategy.on_attended(seq, count, target.view(view))))
            then((Reserve(seq, 0, area.name),))
        return tuple(plan), view

    def on_attended(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """As the class's strategy; a switch that was planned is now made."""
        conversation = self._conversations[seq]
        if view.num_seen(seq) > conversation.next_start:
            conversation.num_begun, conversation.next_start = _begun(conversation, view.num_seen(seq))
        switch, conversation.planned = conversation.planned, None
        if switch is not None:
            self._forget(seq, switch.source, view)
            conversation.current = switch.target
            if switch.num_seen:
                self.switches.append(switch)
        member = self._members[conversation.current]
        return member.plan(member.strategy.on_attended(seq, num_tokens, member.view(view)))

    def _forget(self, seq: int, name: str, view: LedgerView) -> None:
        """Let a class's strategy drop what it remembers of a sequence; what it holds is none of its business now."""
        self._members[name].strategy.on_finish(seq, self._members[name].view(view))

    def on_pressure(self, seq: int, need_bytes: int, view: LedgerView) -> Plan:
        """As the class's strategy."""
        member = self._members[self._conversations[seq].current]
        return member.plan(member.strategy.on_pressure(seq, need_bytes, member.view(view)))

    def on_finish(self, seq: int, view: LedgerView) -> Plan:
        """Release, and forget the conversation."""
        conversation = self._conversations.pop(seq)
        self._forget(seq, conversation.current, view)
        if conversation.planned is not None:
            self._forget(seq, conversation.planned.target, view)
        return (Release(seq),)

    def on_complete(self, session: Session) -> None:
        """All may learn."""
        for member in self._members.values():
            member.strategy.on_complete(session)


def _begun(conversation: _Conversation, num_tokens: int) -> tuple[int, int]:
    """How many turns so many tokens have begun, and how many tokens begin the next; from what had begun before."""
    session, number, start = conversation.session, conversation.num_begun, conversation.next_start
    turns = session.turns
    while start < num_tokens and number < len(turns):
        number += 1
        start += session.num_prefill_tokens(number - 1) + turns[number - 1].num_decode_steps
    return number, start if number < len(turns) else UNLIMITED


def _arriving(plan: Iterable[Operation], src: str, held: int) -> Iterable[Operation]:
    """A plan to append, with tokens that come from an area, its oldest first, instead of new ones."""
    for op in plan:
        if isinstance(op, Append):
            held -= op.num_tokens
            yield Move(op.seq, src, op.area, Rule(recent=held))
        else:
            yield op


def _check_member(name: str, strategy: object) -> None:
    """Refuse a strategy whose tokens could not move to the others, or theirs to it.

    Raises:
        ValueError: it is refused.
    """
    if not isinstance(strategy, Strategy):
        raise ValueError(f"{name} is a strategy, got {strategy!r}")
    kind = type(strategy).__module__.rpartition(".")[2]
    reason = ""
    if strategy.recomputes:
        reason = "it holds nothing between steps"
    elif strategy.signals:
        reason = f"it ranks tokens by {', '.join(strategy.signals)}, and tokens that arrive have none"
    elif any(isinstance(area.layout, Blocks) for area in strategy.areas):
        reason = "blocks of a pool leave whole, and a part of them may have to"
    elif isinstance(strategy, Ahead) or getattr(strategy, "background", False):
        reason = "what it does beside the steps may not be done when its tokens are to move"
    elif not strategy.lossless and not all(area.positions for area in strategy.areas):
        reason = "it loses tokens and keeps no positions beside those that are left, so that they could not move on"
    if reason:
        raise ValueError(f"{name}: {kind} cannot take turns with other strategies: {reason}")
