"""Drive one sequence under a strategy on a sample, and hold its attention against the exact one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kvbench.backend.attention import QUERY_CHUNK, packed
from kvbench.backend.base import Booking
from kvbench.backend.choice import Conditions
from kvbench.backend.device import is_out_of_memory
from kvbench.backend.measured import MeasuredBackend
from kvbench.backend.reading import Chunk, decode
from kvbench.backend.signals import queries_at_once
from kvbench.ledger import Limits, OutOfMemory
from kvbench.model.geometry import KVGeometry
from kvbench.plan.ops import Append
from kvbench.quality.sample import ExactAttention, Sample
from kvbench.runner.drive import SEQ, Driver
from kvbench.strategy.base import CapacityExceeded, Strategy
from kvbench.workload.request import Request, Session

MAX_DECODES = 64
"""Decode steps whose output is held against the exact one, evenly spread over a request's."""


@dataclass(frozen=True)
class Quality:
    """What a strategy's attention was worth.

    Args:
        error_relative: |o - o*| / |o*| of the outputs o of all heads together, mean over queries and layers.
        cosine: of the same o and o*, mean over queries and layers.
        mass_kept: share of exact attention that falls on tokens that the strategy still attends, mean over queries,
            heads and layers.
        needle_recall: by depth, the share of heads and needles for which the value nearest (by cosine) to the output,
            of all that the sequence was ever given, is the needle's; empty where none was planted.
        num_queries: tokens whose queries were asked, over all layers.
        num_altered: tokens that the strategy evicted, moved out of attention's sight, or rounded.
    """

    error_relative: float
    cosine: float
    mass_kept: float
    needle_recall: dict[float, float]
    num_queries: int
    num_altered: int


def request_to_probe(sessions: Sequence[Session], max_tokens: int) -> Session:
    """The longest session of at most so many tokens; where there is none, the longest of all, cut to its first."""
    fitting = [session for session in sessions if session.num_tokens <= max_tokens]
    chosen = max(fitting or sessions, key=lambda session: session.num_tokens)
    turns, left = [], max_tokens + 1  # the last token of the last answer is never written
    for turn in chosen.turns:
        num_append = min(turn.num_append_tokens, left - 1)
        num_decode = min(turn.num_decode_tokens, left - num_append)
        if num_append > 0:
            turns.append(Request(num_append, num_decode))
        left -= num_append + num_decode
    return Session(0, tuple(turns))


class Probe:
    """Probes strategies on one request and one sample.

    Asked are the queries of the last token of each append but the first, those of decode steps, and, to see what was
    evicted after it, the last token's again after each append; at the end the needles'.

    Args:
        session: what is appended; the sample has as many tokens.
        sample: K, V and queries; moved to the device.
        geometry: the sample's heads and dtype.
        device: auto, cpu or cuda.
    """

    def __init__(self, session: Session, sample: Sample, geometry: KVGeometry, device: str) -> None:
        shape = geometry.reshaped(num_layers=sample.num_layers)
        self.backend = MeasuredBackend(Conditions(geometry=shape, device=device))
        # Inputs come from the sample: those that the backend would make are kept small.
        self.backend.prepare(1, session.num_tokens)
        on_device = {name: getattr(sample, name).to(self.backend.device) for name in ("keys", "values", "queries")}
        needles = tuple(replace(each, queries=each.queries.to(self.backend.device)) for each in sample.needles)
        self.sample = replace(sample, **on_device, needles=needles)
        self.exact = ExactAttention(self.sample)
        self.session = session

    def __call__(self, strategy: Strategy) -> Quality | None:
        """Probe a strategy.

        Returns:
            What was found; None where the strategy, or the device, cannot hold so long a sequence.
        """
        known = (self.session.num_tokens,)
        strategy = strategy.fitted(Limits(geometry=self.backend.geometry, budget_bytes=None, live_tokens=known))
        self.backend.begin_repetition(strategy.areas)
        try:
            return _Sequence(self, strategy).quality()
        except (CapacityExceeded, OutOfMemory):
            return None
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        finally:
            self.backend.end_repetition()


def asked_decodes(session: Session) -> set[int]:
    """Positions of the decoded tokens whose queries are asked."""
    positions: list[int] = []
    end = 0
    for number, turn in enumerate(session.turns):
        end += session.num_prefill_tokens(number) + turn.num_decode_steps
        positions += range(end - turn.num_decode_steps, end)
    count = min(len(positions), MAX_DECODES)
    return {positions[(2 * turn + 1) * len(positions) // (2 * count)] for turn in range(count)}


class _Sequence:
    """One sequence under one strategy."""

    def __init__(self, probe: Probe, strategy: Strategy) -> None:
        self._probe, self._strategy, self._backend = probe, strategy, probe.backend
        self._driver = Driver(strategy, strategy.ledger(probe.backend.geometry), probe.backend)
        self._num_heads = probe.backend.geometry.plain.num_kv_heads
        self._group_size = probe.backend.geometry.plain.num_heads // self._num_heads
        self._position = 0
        self._found: list[tuple[Tensor, Tensor, Tensor]] = []
        self._recall: dict[float, float] = {}

    def quality(self) -> Quality:
        """Run the request, and sum up."""
        driver, session = self._driver, self._probe.session
        driver.open(SEQ)
        self._carry_out(driver.admit(SEQ, session))
        decodes = asked_decodes(session)
        for number, turn in enumerate(session.turns):
            self._append(session.num_prefill_tokens(number))
            for _ in range(turn.num_decode_steps):
                self._step(1, is_asked=self._position in decodes, is_end=False)
        num_altered = driver.view.num_altered(SEQ)
        self._carry_out(driver.finish(SEQ))
        error, cosine, mass = (torch.stack(parts).mean().item() for parts in zip(*self._found, strict=True))
        num_queries = len(self._found) * self._probe.sample.num_layers
        return Quality(error, cosine, mass, self._recall, num_queries, num_altered)

    def _append(self, num_tokens: int) -> None:
        """Append at once, in as many steps as the strategy takes."""
        is_first, end = self._position == 0, self._position + num_tokens
        for count in self._driver.steps(SEQ, num_tokens):
            is_end = self._position + count == end
            self._step(count, is_asked=is_end and not is_first, is_end=is_end)

    def _step(self, num_tokens: int, is_asked: bool, is_end: bool) -> None:
        """One step as a runner makes it; is_end: it ends an append, so that its last token's queries are asked again.

        A strategy that holds nothing between steps is asked again before it lets go.
        """
        strategy, driver = self._strategy, self._driver
        num_written = driver.num_written(num_tokens, self._position)
        self._position += num_tokens
        start = self._position - num_written
        self._carry_out(driver.append(SEQ, num_written), start)
        if is_asked or strategy.signals:
            outputs = self._attended(start)
            if is_asked:
                self._compare(outputs)
        if strategy.recomputes:
            self._ask_again(is_end)
        after = driver.attended(SEQ, num_tokens)
        if after is not None:
            self._carry_out(after)
        if not strategy.recomputes:
            self._ask_again(is_end)

    def _carry_out(self, booking: Booking, position: int = 0) -> None:
        """What is appended is the sample's, from a position on."""
        sample = self._probe.sample
        for op in booking.plan:
            keys, values = [], []
            if isinstance(op, Append):
                keys, values = (
                    [layer.narrow(1, position, op.num_tokens).unsqueeze(0) for layer in each]
                    for each in (sample.keys, sample.values)
                )
                position += op.num_tokens
            self._backend.carry_out(op, keys, values)

    def _attended(self, start: int) -> list[Tensor]:
        """Attend with the newest token's queries, or with all of the step's where the strategy is told of them.

        Returns:
            A layer's output of the newest token each, [1, num_kv_heads, heads a KV head, head_dim].
        """
        first = start if self._strategy.signals else self._position - 1
        num_layers = self._probe.sample.num_layers
        outputs = self._backend.attend_with(SEQ, [self._chunks(layer, first) for layer in range(num_layers)])
        return [chunks[-1][:, :, -self._group_size :] for chunks in outputs]

    def _chunks(self, layer: int, first: int) -> list[Chunk]:
        queries = self._probe.sample.queries[layer].unsqueeze(0)
        num_weights = queries.shape[1] * self._backend.sequence(SEQ).num_held
        size = queries_at_once(num_weights, QUERY_CHUNK)
        return [
            (start, packed(queries[:, :, start : min(start + size, self._position)], self._num_heads))
            for start in range(first, self._position, size)
        ]

    def _ask_again(self, is_end: bool) -> None:
        """Ask without appending: the newest token's queries at an append's end, and the needles' when all is there."""
        sample, sequence = self._probe.sample, self._backend.sequence(SEQ)

        def answers(queries: Tensor) -> list[Tensor]:
            layers = (packed(layer.unsqueeze(0), self._num_heads) for layer in queries)
            return [decode(sequence, layer, asks) for layer, asks in enumerate(layers)]

        if is_end:
            self._compare(answers(sample.queries[:, :, self._position - 1 : self._position]))
        if sample.needles and self._position == self._probe.session.num_tokens:
            self._recall = self._answered(answers(torch.stack([needle.queries for needle in sample.needles], dim=2)))

    def _compare(self, outputs: list[Tensor]) -> None:
        """Hold the newest token's output against the exact one: error, cosine and mass kept, a figure a layer."""
        answer = self._probe.exact.at(self._position - 1)
        got, exact = torch.cat(outputs).flatten(1).float(), answer.output.flatten(1)
        error = (got - exact).norm(dim=1) / exact.norm(dim=1)
        mass = torch.stack([self._mass(layer, weights) for layer, weights in enumerate(answer.weights)])
        self._found.append((error, torch.cosine_similarity(got, exact, dim=1), mass))

    def _mass(self, layer: int, weights: Tensor) -> Tensor:
        """The share of exact attention that falls on what is attended, mean over heads; weights as in `Answer`."""
        if self._driver.view.num_attended(SEQ) == self._position:  # each token once: no need to restore packed ones
            return weights.sum(dim=2).mean()
        kept = torch.zeros(weights.shape[:2], device=weights.device)
        for _, piece in self._backend.sequence(SEQ).pieces(layer):
            positions = piece.positions
            if isinstance(positions, range):
                kept += weights[:, :, positions.start : positions.stop].sum(dim=2)
            else:
                index = positions[0].long().unsqueeze(1).expand(-1, weights.shape[1], -1)
                kept += weights.gather(2, index).sum(dim=2)
        return kept.mean()

    def _answered(self, outputs: list[Tensor]) -> dict[float, float]:
        """By depth, the share of heads whose output is nearest to a needle's value, of all values ever given."""
        needles = self._probe.sample.needles
        values = self._probe.sample.values[:, :, : self._position].float()
        scores = torch.cat(outputs).float() @ values.transpose(2, 3) / values.norm(dim=3).unsqueeze(2)
        nearest = scores.argmax(dim=3).unflatten(2, (len(needles), self._group_size))
        found: dict[float, list[float]] = {}
        for number, needle in enumerate(needles):
            places = nearest[:, :, number]
            is_right = (places >= needle.start) & (places < needle.start + needle.num_tokens)
            found.setdefault(needle.depth, []).append(is_right.float().mean().item())
        return {depth: sum(shares) / len(shares) for depth, shares in found.items()}
