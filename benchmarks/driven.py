"""A sequence under the strategy dynamic, driven as the runner drives it, and the K and V that it is given."""

import torch
from torch import Tensor

from kvbench.backend.measured import Measured
from kvbench.geometry import KVGeometry
from kvbench.ledger import Ledger
from kvbench.ops import Plan
from kvbench.strategy.dynamic import Dynamic
from kvbench.workload.request import Request, Turn

SEQ = 0
NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 32, 8, 128
GROWTH_FACTOR = 1.5
MAX_CAPACITY = 1 << 20
NUM_TOKENS_MADE = 64
DTYPES = ("bfloat16", "float32")


def geometry(dtype: str) -> KVGeometry:
    """One layer of a model with 32 query heads on 8 KV heads of 128."""
    return KVGeometry(num_layers=1, num_heads=NUM_HEADS, num_kv_heads=NUM_KV_HEADS, head_dim=HEAD_DIM, dtype=dtype)


def random_tokens(num_tokens: int, dtype: str, num_heads: int = NUM_KV_HEADS) -> Tensor:
    """Random values, [1, num_heads, num_tokens, head_dim]."""
    return torch.randn(1, num_heads, num_tokens, HEAD_DIM).to(getattr(torch, dtype))


def decoded_tokens(dtype: str) -> list[tuple[Tensor, Tensor]]:
    """K and V of single tokens, to be appended in turn."""
    return [(random_tokens(1, dtype), random_tokens(1, dtype)) for _ in range(NUM_TOKENS_MADE)]


class Driven:
    """One sequence under dynamic: strategy, ledger and backend, called in the runner's order.

    Args:
        dtype: of K and V.
        initial_capacity: slots reserved at first.
        prompt: K and V appended at once, before anything is timed.
    """

    def __init__(self, dtype: str, initial_capacity: int, prompt: tuple[Tensor, Tensor]) -> None:
        shape = geometry(dtype)
        self.strategy = Dynamic(
            initial_capacity=initial_capacity, growth_factor=GROWTH_FACTOR, max_capacity=MAX_CAPACITY, round_to=1
        )
        self.ledger = Ledger(shape)
        self.backend = Measured(geometry=shape, device="cpu", attend=True, seed=0)
        self.ledger.open(SEQ)
        self.backend.open(SEQ)
        num_tokens = prompt[0].shape[2]
        self._obey(self.strategy.on_admit(SEQ, Request(0, (Turn(num_tokens),)), self.ledger.view), [], [])
        self.append([prompt[0]], [prompt[1]], num_tokens)

    @property
    def capacity(self) -> int:
        """Slots allocated."""
        return self.ledger.view.capacity(SEQ)

    def append(self, keys: list[Tensor], values: list[Tensor], num_tokens: int = 1) -> None:
        """Append as the runner does: the strategy plans, the ledger books, the backend carries out."""
        self._obey(self.strategy.on_append(SEQ, num_tokens, self.ledger.view), keys, values)

    def _obey(self, plan: Plan, keys: list[Tensor], values: list[Tensor]) -> None:
        self.ledger.book(plan)
        for op in plan:
            self.backend.carry_out(op, keys, values)
