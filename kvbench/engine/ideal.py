"""No engine's rules: memory holds what the model's layers need, and nothing beside it."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from kvbench.checks import check_bound
from kvbench.engine.base import Engine
from kvbench.engine.memory import RankMemory, ideal_memory
from kvbench.engine.pool import Need, Pool, SubPool
from kvbench.engine.scheduling import Scheduling
from kvbench.model.accelerator import Accelerator
from kvbench.model.groups import STATE, LayerGroup
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel


class TokenPool(Pool):
    """A pool without blocks: a block is a token, and a sequence takes its bytes."""

    @property
    def num_blocks(self) -> int:
        """Tokens."""
        return self.num_tokens

    @property
    def page_bytes(self) -> int:
        """Bytes of a token that all layers hold."""
        return self.rank.bytes_per_token

    def blocks_of(self, num_tokens: int) -> int:
        """Tokens."""
        return num_tokens


@dataclass(frozen=True, kw_only=True)
class Ideal(Engine):
    """What no engine reaches: no blocks, no padding, no room for graphs.

    Args:
        version: none; there is one.
        step_s: host time of a step, in seconds; None: what the hardware's file says.
        compute_share: of the rate at which measured kernels multiply 16 bits, what its own reach; None: all.
        max_model_len: the longest sequence; None: the model's own limit.
    Raises:
        ValueError: a value is out of its range.
    """

    max_model_len: int | None = None

    name: ClassVar[str] = "ideal"
    divides: ClassVar[str] = "ideal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bound("engine.max_model_len", self.max_model_len)

    @property
    def scheduling(self) -> Scheduling:
        """Whatever there is, together."""
        return Scheduling()

    def resolved(self, hardware: Accelerator | None, model: Model, parallel: Parallel | None = None) -> Self:
        """The same with the model's own limit."""
        return replace(self, max_model_len=self.max_model_len or model.max_tokens)

    def memory(self, rank: Model, hardware: Accelerator, parallel: Parallel | None = None) -> RankMemory:
        """All that weights leave."""
        return ideal_memory(rank, hardware)

    def pool(self, rank: Model, available_bytes: int, parallel: Parallel | None = None) -> Pool:
        """Memory, byte for byte. Without a longest sequence, tokens are those of one."""
        ranks = (parallel or Parallel()).decode_context
        max_model_len = self.max_model_len or rank.max_tokens or 1
        available_bytes = max(available_bytes, 0)
        part = SubPool(
            name="bytes",
            num_blocks=available_bytes,
            block_bytes=1,
            needs=tuple(_need(group, ranks) for group in rank.groups if group.token_bytes or group.state_bytes),
        )
        concurrency = available_bytes / part.blocks_of(max_model_len)
        return TokenPool(
            parts=(part,),
            rank=rank,
            ranks=ranks,
            block_tokens=1,
            num_groups=len(part.needs),
            num_tokens=int(concurrency * max_model_len),
            max_concurrency=concurrency,
            max_model_len=max_model_len,
        )


def _need(group: LayerGroup, ranks: int) -> Need:
    """Bytes, as so many groups of blocks of one byte."""
    if group.kind == STATE:
        return Need(kind=STATE, num_groups=group.state_bytes, block_tokens=0, extra=1)
    return Need(kind=group.kind, num_groups=group.token_bytes, block_tokens=1, most_tokens=group.tokens, ranks=ranks)
