"""A sequence under a strategy, driven as the runner drives it, and the K and V that it is given."""

import torch
from torch import Tensor

from kvbench.backend.base import Booking
from kvbench.backend.choice import Conditions
from kvbench.backend.measured import MeasuredBackend
from kvbench.model.geometry import KVGeometry
from kvbench.runner.drive import Driver
from kvbench.strategy.base import Strategy
from kvbench.strategy.dynamic import Dynamic
from kvbench.workload.request import Request, Session

SEQ = 0
NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 32, 8, 128
GROWTH_FACTOR = 1.5
MAX_CAPACITY = 1 << 20
NUM_TOKENS_MADE = 64
DTYPES = ("bfloat16", "float32")


class Place:
    """Where everything runs; a run of the benchmarks sets it once, at its beginning."""

    device = "cpu"


def geometry(dtype: str) -> KVGeometry:
    """One layer of a model with 32 query heads on 8 KV heads of 128."""
    return KVGeometry.uniform(
        num_layers=1, num_heads=NUM_HEADS, num_kv_heads=NUM_KV_HEADS, head_dim=HEAD_DIM, dtype=dtype
    )


def random_tokens(num_tokens: int, dtype: str, num_heads: int = NUM_KV_HEADS) -> Tensor:
    """Random values, [1, num_heads, num_tokens, head_dim]."""
    return torch.randn(1, num_heads, num_tokens, HEAD_DIM).to(Place.device, getattr(torch, dtype))


def decoded_tokens(dtype: str) -> list[tuple[Tensor, Tensor]]:
    """K and V of single tokens, to be appended in turn."""
    return [(random_tokens(1, dtype), random_tokens(1, dtype)) for _ in range(NUM_TOKENS_MADE)]


class Driven:
    """One sequence under a strategy, driven by the runner's driver.

    Args:
        dtype: of K and V.
        strategy: what decides.
        prompt: K and V appended before anything is timed, as the strategy takes them; attention is left out.
    """

    def __init__(self, dtype: str, strategy: Strategy, prompt: tuple[Tensor, Tensor]) -> None:
        shape = geometry(dtype)
        self.backend = MeasuredBackend(Conditions(geometry=shape, device=Place.device))
        self.backend.begin_repetition(strategy.areas)
        self._driver = Driver(strategy, strategy.ledger(shape), self.backend)
        self._driver.open(SEQ)
        num_tokens = prompt[0].shape[2]
        self._carry_out(self._driver.admit(SEQ, Session(0, (Request(num_tokens),))), [], [])
        done = 0
        for count in self._driver.steps(SEQ, num_tokens):
            self.append(*([part.narrow(2, done, count)] for part in prompt), count)
            done += count

    @property
    def capacity(self) -> int:
        """Slots allocated."""
        return self._driver.view.capacity(SEQ)

    def append(self, keys: list[Tensor], values: list[Tensor], num_tokens: int = 1) -> None:
        """Append as the runner does: the strategy plans, the ledger books, the backend carries out."""
        self._carry_out(self._driver.append(SEQ, num_tokens), keys, values)
        after = self._driver.attended(SEQ, num_tokens)
        if after is not None:
            self._carry_out(after, [], [])

    def _carry_out(self, booking: Booking, keys: list[Tensor], values: list[Tensor]) -> None:
        for op in booking.plan:
            self.backend.carry_out(op, keys, values)


def dynamic(initial_capacity: int) -> Dynamic:
    """The strategy that most parts measure."""
    return Dynamic(
        initial_capacity=initial_capacity, growth_factor=GROWTH_FACTOR, max_capacity=MAX_CAPACITY, round_to=1
    )
