"""Chunks: growth without copying."""

from dataclasses import dataclass
from typing import Annotated

from kvbench.checks import check_int
from kvbench.ledger import LedgerView
from kvbench.plan.area import Area, Chunks
from kvbench.plan.ops import Plan
from kvbench.strategy.base import IntegerRule, Strategy, append_in_units, constant, derived, in_units
from kvbench.tried import Tried


@dataclass(frozen=True, kw_only=True)
class Chunked(Strategy):
    """Add a chunk of fixed size when an append does not fit; nothing is ever copied.

    At most one chunk is partly empty. Attention reads each chunk where it lies and merges the parts by their
    log-sum-exp, so that growth is free and reading costs a little more than over one tensor.

    Args:
        chunk_tokens: slots of a chunk, > 0.
    Raises:
        ValueError: chunk_tokens is not positive.
    Source: merging by log-sum-exp: Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135.
    Departs: none.
    """

    chunk_tokens: Annotated[int, Tried(choices=(128, 256, 512, 1024, 2048))] = 1024

    def __post_init__(self) -> None:
        check_int("chunk_tokens", self.chunk_tokens, 1)

    @derived
    def areas(self) -> tuple[Area, ...]:
        """Chunks of that size."""
        return (Area(layout=Chunks(self.chunk_tokens)),)

    @property
    def integer_rule(self) -> IntegerRule:
        """Nothing at admission; whole chunks as they are required."""
        return IntegerRule(constant, (0,), in_units, (self.chunk_tokens,), None)

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Append where it fits, or add chunks first."""
        return append_in_units(seq, num_tokens, self.chunk_tokens, view)
