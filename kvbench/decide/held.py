"""What a strategy holds of one sequence: driven as a run drives it, counted by the ledger, and nothing carried out."""

from dataclasses import dataclass

from kvbench.backend.counted import CountedBackend
from kvbench.ledger import Limits
from kvbench.model.geometry import KVGeometry
from kvbench.runner.drive import SEQ, Driver, step
from kvbench.strategy.base import CapacityExceeded, Strategy
from kvbench.workload.request import Request, Session

MOST_STEPS = 2_048
"""Decode steps that are taken one by one; an answer's tokens before these come with the prompt."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a strategy holds on a rank.

    Args:
        sequence_bytes: of one sequence, at its end.
        reading_bytes: of what reading needs, for all sequences together.
    """

    sequence_bytes: int
    reading_bytes: int

    def requests(self, available_bytes: int) -> int | None:
        """Such sequences that so many bytes hold; None where one holds nothing, so that memory is no limit."""
        if not self.sequence_bytes:
            return None
        return max(available_bytes - self.reading_bytes, 0) // self.sequence_bytes


def held_by(
    strategy: Strategy, geometry: KVGeometry, num_tokens: int, longest: int | None = None, *, num_output_tokens: int = 1
) -> Held | None:
    """What a strategy holds of a sequence once its last token is in the cache.

    Args:
        strategy: with its parameters; what was left to a run takes the longest sequence.
        geometry: a rank's.
        num_tokens: of the sequence, > 0.
        longest: tokens of the longest sequence that is served; None: of this one.
        num_output_tokens: the last of them, which are decoded one by one; the others are the prompt's.
    Returns:
        None where so many tokens are not served, or the strategy cannot hold them.
    Raises:
        ValueError: the geometry does not go into the strategy's format.
    """
    longest = longest or num_tokens
    if num_tokens > longest:
        return None
    num_steps = min(num_output_tokens, num_tokens - 1, MOST_STEPS)
    session = Session(0, (Request(num_tokens - num_steps, num_steps + 1),))
    fitted = strategy.fitted(Limits(geometry=geometry, budget_bytes=None, context_tokens=longest, is_modelled=True))
    backend, ledger = CountedBackend(geometry), fitted.ledger(geometry)
    driver = Driver(fitted, ledger, backend)
    driver.open(SEQ)
    driver.admit(SEQ, session)
    held = 0
    try:
        for num_appended in session.appends():
            for count in driver.steps(SEQ, num_appended):
                step(driver, backend, count, held, attends=False)
                held += count
    except CapacityExceeded:
        return None
    return Held(sequence_bytes=ledger.allocated_bytes - ledger.reading_bytes, reading_bytes=ledger.reading_bytes)
