"""The states of a batch inside a model: tensors of constant size, which each step's tokens change in place."""

import torch
from torch import Tensor

from kvbench.backend.storage.grouped import new_state
from kvbench.backend.storage.memory import Memory
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import CONVOLUTION, RECURRENT
from kvbench.plan.area import DEVICE

NOT_TAKEN_BACK = "crop removes no tokens of a model with states: what went into a state cannot be taken back"
"""What cropping, and whoever needs it, is told."""

Slot = dict[int, Tensor | None]
"""A layer's tensor of one name, by its number in the layer, as transformers looks it up: there is one, number 0."""


class States:
    """A convolution's inputs and a recurrent state for each layer that holds such; None where there is no batch.

    Args:
        geometry: the model's, in whatever dtype.
    """

    def __init__(self, geometry: KVGeometry) -> None:
        self._slots: dict[int, dict[str, Slot]] = {
            layer: {tensor.name: {0: None} for tensor in group.state}
            for group in geometry.groups
            if group.state
            for layer in group.layers
        }

    def of(self, layer: int) -> tuple[Slot, Slot]:
        """Where a layer's convolution and recurrent state are to be found, now and later; of others there are none."""
        own = self._slots.get(layer, {})
        return own.get(CONVOLUTION, {0: None}), own.get(RECURRENT, {0: None})

    @property
    def is_held(self) -> bool:
        """Whether there are tensors now."""
        return any(slot[0] is not None for own in self._slots.values() for slot in own.values())

    def hold(self, geometry: KVGeometry, num_rows: int, device: torch.device) -> None:
        """Make them for a batch, as zeros; nothing where they are there.

        Raises:
            OutOfMemory: the device gives no memory.
        """
        if self.is_held:
            return
        memory = Memory(DEVICE, device)
        for group in geometry.groups:
            for layer in group.layers if group.state else ():
                for tensor in group.state:
                    self._slots[layer][tensor.name][0] = new_state(tensor, num_rows, memory)

    def select_rows(self, index: Tensor) -> None:
        """Hold chosen rows, tensor by tensor.

        Args:
            index: rows, int64 [new num_rows].
        """
        for own in self._slots.values():
            for slot in own.values():
                old = slot[0]
                if old is not None:
                    slot[0] = Memory(DEVICE, old.device).rows(old, index)
                    del old

    def let_go(self) -> None:
        """Hold nothing."""
        for own in self._slots.values():
            for slot in own.values():
                slot[0] = None
