"""What a pool of blocks was promised to, where an engine admits nobody who might have to give way."""

from kvbench.engine.scheduling import Scheduling, promised_slots
from kvbench.plan.area import Blocks
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Session


class Promises:
    """Slots that sessions come to hold in the end, of those who hold a cache.

    Args:
        rules: of the engine.
        strategy: how slots are held: other than in blocks of one pool nothing is promised.
    """

    def __init__(self, rules: Scheduling, strategy: Strategy) -> None:
        layouts = [area.layout for area in strategy.areas]
        blocks = [layout for layout in layouts if isinstance(layout, Blocks)]
        self._blocks = blocks[0] if blocks and len(layouts) == 1 and not rules.evicts else None
        self._num_slots = self._num_taken_back = 0

    def begin_step(self) -> None:
        """What was promised to who let go in the step before can be promised to others."""
        self._num_slots -= self._num_taken_back
        self._num_taken_back = 0

    def has_room(self, session: Session) -> bool:
        """Whether one more can be promised what it comes to hold; one alone is let in to fail by itself."""
        if self._blocks is None or not self._num_slots:
            return True
        return self._num_slots + self._slots_of(session) <= self._blocks.pool

    def give(self, session: Session) -> None:
        """Promise a session its slots."""
        self._num_slots += self._slots_of(session)

    def take_back(self, session: Session) -> None:
        """It has let go of its cache; a step is planned with all who were live as it began."""
        self._num_taken_back += self._slots_of(session)

    def _slots_of(self, session: Session) -> int:
        return 0 if self._blocks is None else promised_slots(session.num_tokens, self._blocks.num_tokens)
