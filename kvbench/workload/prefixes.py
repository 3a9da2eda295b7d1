"""What sessions begin with and have in common: system prompts, definitions of tools, documents; whose they are."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kvbench.checks import check_has, check_int, check_number
from kvbench.workload.contents import NONE
from kvbench.workload.histories import Beginnings
from kvbench.workload.lengths import MAX_RANKS, ConstantLength, Lengths, Zipf, check_lengths

MAX_TENANTS = 1_000_000
SYSTEM_TOKENS, DOCUMENT_TOKENS = ConstantLength(tokens=2_771), ConstantLength(tokens=8_724)


class Begun(NamedTuple):
    """What sessions begin with.

    Args:
        beginnings: the texts, and each session's or turn's; None: they share nothing.
        tenants: int64; whose each is; None: one tenant's.
    """

    beginnings: Beginnings | None = None
    tenants: NDArray[np.int64] | None = None

    def of_turns(self, counts: NDArray[np.int64]) -> "Begun":
        """The same of each turn, of sessions of so many."""
        texts, tenants = self
        if texts is not None:
            texts = replace(texts, chosen=np.repeat(texts.chosen, counts))
        return Begun(texts, None if tenants is None else np.repeat(tenants, counts))


class Prefixes(Protocol):
    """What everything that sessions begin with can do."""

    def begin(self, num_sessions: int, rng: np.random.Generator) -> Begun:
        """Draw what each of so many sessions begins with. The first n of more are those of n."""
        ...


def check_prefixes(value: object) -> None:
    """Refuse what is neither prefixes nor None.

    Raises:
        ValueError: it has no `begin`.
    """
    if value is not None:
        check_has("prefixes", value, "begin", "what sessions begin with (SharedPrefixes), or null")


@dataclass(frozen=True, kw_only=True)
class SharedPrefixes(Prefixes):
    """Texts that sessions begin with: a system prompt of few, each alike, then a document, few of them most.

    A tenant's system prompts and documents are its own: nothing is shared between tenants.

    Args:
        num_system_prompts: a tenant's, >= 0; 0: sessions begin with the document.
        system_tokens: tokens of a system prompt.
        tool_tokens: tokens of the definitions of tools that follow it; None: it has none.
        num_documents: a tenant's, 0 to 10,000,000; 0: no session has one.
        document_exponent: the n-th is taken with a probability in proportion to n^−exponent; 0 takes all alike.
        document_tokens: tokens of a document.
        num_tenants: who send sessions, each alike, > 0.
    Raises:
        ValueError: a number is out of its range, a part is not of its kind, or sessions begin with nothing.
    Source: system_tokens: the median of 22 coding agents' sessions in callanjfox/kv-cache-tester. document_exponent:
        Breslau et al. 1999, "Web Caching and Zipf-like Distributions", who found 0.64 to 0.83. document_tokens: the
        6,711 words that LongBench's English texts have on average (arXiv:2308.14508), at 1.3 tokens a word.
    """

    num_system_prompts: int = 1
    system_tokens: Lengths = SYSTEM_TOKENS
    tool_tokens: Lengths | None = None
    num_documents: int = 0
    document_exponent: float = 0.8
    document_tokens: Lengths = DOCUMENT_TOKENS
    num_tenants: int = 1

    def __post_init__(self) -> None:
        check_int("num_system_prompts", self.num_system_prompts, 0, MAX_TENANTS)
        check_lengths("system_tokens", self.system_tokens)
        if self.tool_tokens is not None:
            check_lengths("tool_tokens", self.tool_tokens)
        check_int("num_documents", self.num_documents, 0, MAX_RANKS)
        check_number("document_exponent", self.document_exponent, 0, 100)
        check_lengths("document_tokens", self.document_tokens)
        check_int("num_tenants", self.num_tenants, 1, MAX_TENANTS)
        if not self.num_system_prompts and not self.num_documents:
            raise ValueError("prefixes have at least 1 system prompt or 1 document, got none; null shares nothing")
        for name in ("num_system_prompts", "num_documents"):
            check_int(f"{name} × num_tenants", getattr(self, name) * self.num_tenants, 0, MAX_RANKS)

    def begin(self, num_sessions: int, rng: np.random.Generator) -> Begun:
        """Draw what sessions begin with; the first n of more sessions are those of n."""
        tenants_rng, systems_rng, documents_rng, lengths_rng, tools_rng, document_lengths_rng = rng.spawn(6)
        tenants = tenants_rng.integers(self.num_tenants, size=num_sessions)
        num_systems = self.num_system_prompts * self.num_tenants
        chosen = np.full(num_sessions, NONE)
        ends = np.zeros(num_systems, np.int64)
        if num_systems:
            chosen = tenants * self.num_system_prompts + systems_rng.integers(
                self.num_system_prompts, size=num_sessions
            )
            ends += self.system_tokens.draw(num_systems, lengths_rng)
            if self.tool_tokens is not None:
                ends += self.tool_tokens.draw(num_systems, tools_rng)
        parents = np.full(num_systems, NONE)
        if self.num_documents:
            ranks = Zipf(exponent=self.document_exponent, low=1, high=self.num_documents)
            documents = tenants * self.num_documents + ranks.draw(num_sessions, documents_rng) - 1
            tokens = self.document_tokens.draw(self.num_documents * self.num_tenants, document_lengths_rng)
            # A document after another system prompt is another text; only those that are taken are stretches.
            stride = self.num_documents * self.num_tenants
            pairs, places = np.unique((chosen + 1) * stride + documents, return_inverse=True)
            before = pairs // stride - 1
            begins = np.where(before == NONE, 0, ends[before]) if num_systems else 0
            parents, chosen = np.append(parents, before), num_systems + places
            ends = np.append(ends, begins + tokens[pairs % stride])
        beginnings = Beginnings(parents=parents, ends=ends, chosen=chosen)
        return Begun(beginnings, tenants if self.num_tenants > 1 else None)
