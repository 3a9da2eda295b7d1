"""Generated workloads: conversations of several turns, and samples drawn in parallel from one prompt."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kvbench.checks import check_int, check_number
from kvbench.workload.arrivals import MAX_REQUESTS, AllAtOnce, Arrivals, check_arrivals, clients_of
from kvbench.workload.columns import sessions_of
from kvbench.workload.contents import NONE
from kvbench.workload.histories import Beginnings, TurnColumns
from kvbench.workload.lengths import Lengths, Lognormal, check_counts, check_lengths, counts_of
from kvbench.workload.prefixes import Begun, Prefixes, check_prefixes
from kvbench.workload.request import NS_PER_S, Request, Session
from kvbench.workload.scenario import Scenario, Workload
from kvbench.workload.trace_columns import TraceColumns

MAX_THINK_S = 1_000_000


def draw_think_ns(size: int, think_s: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw exponential think times.

    Args:
        size: how many.
        think_s: their mean in seconds; 0 gives zeros.
        rng: the think times' own generator.
    Returns:
        Nanoseconds.
    """
    return np.rint(rng.standard_exponential(size) * (think_s * NS_PER_S)).astype(np.int64)


CHAT_PROMPTS = Lognormal(median=160, sigma=0.7, low=50, high=600)
CHAT_OUTPUTS = Lognormal(median=60, sigma=0.4, low=20, high=120)
"""A short chat's lengths, where nothing else is said."""


@dataclass(frozen=True, kw_only=True)
class Conversations(Scenario):
    """Users who send a message, read the answer, think, and send the next. One cache holds a conversation.

    Every component draws from a generator of its own, so that other lengths leave the arrivals as they were,
    and the first n requests are the same however many there are.

    Args:
        num_requests: conversations, > 0.
        arrivals: when they start.
        prompts: tokens appended at each turn.
        outputs: tokens decoded at each turn.
        turns: turns of a conversation: an integer, or a distribution whose lengths count turns.
        think_s: mean of the exponential time between an answer and the next message, seconds, >= 0.
        prefixes: what conversations begin with before their first message, and share; None: nothing.
    Raises:
        ValueError: a number is out of its range, or a part is not of its kind.
    """

    num_requests: int = 12
    arrivals: Arrivals = field(default_factory=AllAtOnce)
    prompts: Lengths = CHAT_PROMPTS
    outputs: Lengths = CHAT_OUTPUTS
    turns: Lengths | int = 1
    think_s: float = 0.0
    prefixes: Prefixes | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("num_requests", self.num_requests, 1, MAX_REQUESTS)
        check_arrivals("arrivals", self.arrivals)
        check_lengths("prompts", self.prompts)
        check_lengths("outputs", self.outputs)
        check_counts("turns", self.turns)
        check_number("think_s", self.think_s, 0, MAX_THINK_S)
        check_prefixes(self.prefixes)

    @property
    def num_available(self) -> int:
        """See `Scenario`."""
        return self.num_requests

    def workload(self, rng: np.random.Generator) -> Workload:
        """Draw the conversations."""
        return Workload(sessions_of(self.columns(rng)), self.num_available, clients_of(self.arrivals))

    def columns(self, rng: np.random.Generator) -> TraceColumns:
        """Draw the conversations as columns, a row a turn, those of a conversation together."""
        arrivals_rng, turns_rng, prompts_rng, outputs_rng, think_rng, prefixes_rng = rng.spawn(6)
        num = min(self.num_requests, self.max_requests or self.num_requests)
        counts = counts_of(self.turns).draw(num, turns_rng)
        ends = np.cumsum(counts)
        firsts, total = ends - counts, int(ends[-1])
        think_ns = draw_think_ns(total, self.think_s, think_rng)
        think_ns[firsts] = 0
        after = np.arange(-1, total - 1)
        after[firsts] = NONE
        begun = Begun() if self.prefixes is None else self.prefixes.begin(num, prefixes_rng).of_turns(counts)
        return TurnColumns(
            arrival_ns=np.repeat(self.arrivals.times_ns(num, arrivals_rng), counts),
            sessions=np.repeat(np.arange(num), counts),
            after=after,
            num_new_tokens=self.prompts.draw(total, prompts_rng),
            num_output_tokens=self.outputs.draw(total, outputs_rng),
            think_ns=think_ns,
            beginnings=begun.beginnings,
            num_clients=clients_of(self.arrivals),
            tenants=begun.tenants,
        ).columns


@dataclass(frozen=True, kw_only=True)
class ParallelSampling(Scenario):
    """Several answers to each prompt: requests of one group arrive together with the same prompt.

    A cut by `max_requests` may leave the last group short.

    Args:
        num_prompts: prompts, each a group, > 0.
        num_samples: answers to each prompt, > 0.
        arrivals: when the prompts arrive.
        prompts: tokens of a prompt.
        outputs: tokens of an answer.
    Raises:
        ValueError: a number is out of its range, or a part is not of its kind.
    """

    num_prompts: int = 3
    num_samples: int = 4
    arrivals: Arrivals = field(default_factory=AllAtOnce)
    prompts: Lengths = CHAT_PROMPTS
    outputs: Lengths = CHAT_OUTPUTS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("num_prompts", self.num_prompts, 1, MAX_REQUESTS)
        check_int("num_samples", self.num_samples, 1, MAX_REQUESTS)
        check_arrivals("arrivals", self.arrivals)
        if clients_of(self.arrivals) is not None:
            raise ValueError(
                "arrivals: the samples of a prompt are sent at once, and clients of ClosedLoop send one after another: "
                "take another process"
            )
        check_lengths("prompts", self.prompts)
        check_lengths("outputs", self.outputs)

    @property
    def num_available(self) -> int:
        """See `Scenario`."""
        return self.num_prompts * self.num_samples

    def workload(self, rng: np.random.Generator) -> Workload:
        """Draw the prompts, and the samples of each."""
        arrival_ns, prompts, groups, outputs = (each.tolist() for each in self._drawn(rng))
        sessions = tuple(
            Session(arrival_ns[group], (Request(prompts[group], output),), group)
            for group, output in zip(groups, outputs, strict=True)
        )
        return Workload(sessions, self.num_available)

    def columns(self, rng: np.random.Generator) -> TraceColumns:
        """Draw the same as columns; a group's prompt is one stretch."""
        arrival_ns, prompts, groups, outputs = self._drawn(rng)
        return TurnColumns(
            arrival_ns=arrival_ns[groups],
            sessions=np.arange(groups.size),
            after=np.full(groups.size, NONE),
            num_new_tokens=np.zeros_like(groups),
            num_output_tokens=outputs,
            think_ns=np.zeros_like(groups),
            beginnings=Beginnings(parents=np.full(prompts.size, NONE), ends=prompts, chosen=groups),
        ).columns

    def _drawn(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
        """Arrivals and lengths of the prompts; of each sample which it is of, and the length of its answer."""
        arrivals_rng, prompts_rng, outputs_rng = rng.spawn(3)
        num = min(self.num_available, self.max_requests or self.num_available)
        num_groups = -(-num // self.num_samples)
        return (
            self.arrivals.times_ns(num_groups, arrivals_rng),
            self.prompts.draw(num_groups, prompts_rng),
            np.arange(num) // self.num_samples,
            self.outputs.draw(num, outputs_rng),
        )
