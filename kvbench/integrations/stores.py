"""The stores of a batch, one a layer, and how a plan is carried out in each."""

from torch import Tensor

from kvbench.backend.base import NO_TIMES, Times
from kvbench.backend.storage import Areas, SequenceStore
from kvbench.ledger import BackgroundError
from kvbench.model.geometry import KVGeometry
from kvbench.plan.ops import Append, Drop, Plan, Release, Save


class Stores:
    """The stores of a batch, one a layer: what its driver opens and checks, and knows the batch by.

    Args:
        areas: of each layer.
        geometry: the shape of a token's K and V, over all layers.
    """

    def __init__(self, areas: list[Areas], geometry: KVGeometry) -> None:
        self.areas = areas
        self._geometry = geometry
        self.sequences: list[SequenceStore] = []
        self.has_failed = False

    @property
    def slot_bytes(self) -> int:
        """Bytes of a token in one layer, over all rows."""
        return self._geometry.layer_bytes_per_token * self.areas[0].shape.num_rows

    def open(self, seq: int) -> None:
        """See `Backend.open`."""
        self.sequences = [SequenceStore(areas) for areas in self.areas]

    def check(self, plan: Plan) -> Times:
        """See `Backend.check`."""
        first = [op for op in plan[:1] if not isinstance(op, Drop | Save)]
        failures = [sequence.failure(op.seq, self.slot_bytes) for op in first for sequence in self.sequences]
        for error in filter(None, failures):
            self.has_failed |= isinstance(error, BackgroundError)
            raise error
        return NO_TIMES

    def release(self, seq: int, plan: Plan) -> None:
        """Let go of all, once the rest of a plan was carried out.

        Raises:
            BackgroundError: work beside the steps had failed, and nobody was told.
        """
        sequences, self.sequences, self.has_failed = self.sequences, [], False
        for sequence in sequences:
            carry_out(sequence, tuple(op for op in plan if not isinstance(op, Release)))
        for error in filter(None, [sequence.release(seq, self.slot_bytes) for sequence in sequences]):
            raise error


def write(sequence: SequenceStore, plan: Plan, keys: Tensor, values: Tensor) -> None:
    """Carry a stride's plan out in one layer.

    Args:
        sequence: the layer's store.
        plan: what was booked.
        keys: of the stride's tokens, [num_rows, num_kv_heads, num_tokens, head_dim].
        values: as keys.
    """
    done = 0
    for op in plan:
        if type(op) is Append:
            if op.area not in sequence.area_names:
                continue
            end = done + op.num_tokens
            sequence.append([keys[:, :, done:end]], [values[:, :, done:end]], op.num_tokens, op.area)
            done = end
        else:
            sequence.carry_out(op, [], [])


def carry_out(sequence: SequenceStore, plan: Plan) -> None:
    """Carry a plan that appends nothing out in one layer."""
    for op in plan:
        sequence.carry_out(op, [], [])
