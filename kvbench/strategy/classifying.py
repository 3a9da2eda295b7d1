"""What kind of conversation it is, from the turns that have begun: by words where there is text, else by tokens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from kvbench.workload.request import Request

CODE, CREATIVE, DOCUMENT, CHAT = "code", "creative_writing", "long_document", "short_chat"
CODE_WORDS = frozenset({"def", "function", "class", "import", "while"})
STORY_WORDS = frozenset({"story", "character", "plot", "imagine", "create"})
LEAST_WORDS = 2
"""Different words of a kind that make a class: each of them is an English word as well, but for one."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What classifies, and how slowly the class follows.

    Args:
        window_messages: last messages that count, > 0.
        document_characters: characters of those messages above which it is a long document, > 0.
        document_tokens: the same in tokens, where there is no text, > 0.
        writing_share: share of answers in the tokens of finished turns above which it is creative writing, where there
            is no text.
        patience: turns in a row that a class must win before it is switched to, > 0.
        min_tokens: tokens between two switches, and before the first, >= 0.
    """

    window_messages: int
    document_characters: int
    document_tokens: int
    writing_share: float
    patience: int
    min_tokens: int


def settled_class(turns: Sequence[Request], rules: Rules) -> str:
    """The class that is used, after all that was switched before.

    Args:
        turns: those that have begun, at least one; what the last one's answer will be is not looked at.
        rules: what classifies.
    """
    current = won = class_of(turns[:1], rules)
    wins, start, switched_at = 1, turns[0].num_tokens, 0
    for number in range(1, len(turns)):
        found = class_of(turns[: number + 1], rules)
        wins = wins + 1 if found == won else 1
        won = found
        if won != current and wins >= rules.patience and start - switched_at >= rules.min_tokens:
            current, switched_at = won, start
        start += turns[number].num_tokens
    return current


def class_of(turns: Sequence[Request], rules: Rules) -> str:
    """The class that wins a turn, the last of these."""
    last = turns[-rules.window_messages :]
    texts = [turn.text for turn in last if turn.text is not None]
    return _by_words(texts, rules) if len(texts) == len(last) else _by_tokens(last, rules)


def _by_words(texts: Sequence[str], rules: Rules) -> str:
    words = frozenset().union(*map(_words, texts))
    if len(words & CODE_WORDS) >= LEAST_WORDS:
        return CODE
    if len(words & STORY_WORDS) >= LEAST_WORDS:
        return CREATIVE
    return DOCUMENT if sum(map(len, texts)) > rules.document_characters else CHAT


@lru_cache(maxsize=4096)
def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def _by_tokens(turns: Sequence[Request], rules: Rules) -> str:
    if sum(turn.num_append_tokens for turn in turns) > rules.document_tokens:
        return DOCUMENT
    finished = turns[:-1]
    num_answered = sum(turn.num_decode_tokens for turn in finished)
    all_tokens = sum(turn.num_tokens for turn in finished)
    return CREATIVE if num_answered > rules.writing_share * all_tokens else CHAT
