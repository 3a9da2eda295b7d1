"""What a device would be given in a step, counted without one: kernels, bytes, and copies from and to other tiers."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kvbench.backend.choice import Conditions
from kvbench.backend.clock import HostClock
from kvbench.backend.measured import MeasuredBackend
from kvbench.plan.area import Area

DEVICE = torch.device("meta")
"""Tensors that have a shape and a dtype and no data: to what asks for more than a CPU, they are an accelerator's."""

aten = torch.ops.aten

FREE = {
    aten.empty,
    aten.empty_like,
    aten.empty_strided,
    aten.new_empty,
    aten.new_empty_strided,
    aten._unsafe_view,
    aten.scalar_tensor,
    aten.set_,
}
"""Operations that only allocate or describe, as all views do."""

KERNELS = {
    # Keys are split among the processors, and their parts merged by a second kernel.
    aten._scaled_dot_product_flash_attention: 2,
    # Maximum, infinities out of it, differences, exponentials, sum, logarithm: each by itself.
    aten.logsumexp: 9,
}
"""Of operations that launch several kernels; the others are taken to launch one."""

CHOOSES = {aten.index_select, aten.gather, aten.index}
"""Operations that read of their first tensor only as many elements as they give."""

PLACES = {aten.index_copy_, aten.scatter_, aten.index_put_}
"""Operations that write to their first tensor only as many elements as their last brings, and read none of it."""

OVERWRITES = {aten.copy_, aten.fill_, aten.zero_}
"""Operations that read nothing of their first tensor."""


class Launches(TorchDispatchMode):
    """Counts what this thread gives the device as long as the context lasts; tensors elsewhere are not counted.

    Attributes:
        num_launches: kernels launched on the device.
        num_bytes: read and written by them, each tensor once an operation, as if nothing stayed in a cache.
        num_copies: copies between the device and the host's memory; what they take of a strided tensor's gathering is
            not counted.
        copied_bytes: by those.
        operations: kernels, by the operation that launched them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not type it
        self.num_launches = self.num_bytes = self.num_copies = self.copied_bytes = 0
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry an operation out, and count it."""
        given, kind = kwargs or {}, func.overloadpacket
        if kind is aten.copy_ and args[0].device != args[1].device:
            return self._copied(args[1], args[0])  # there is nothing to copy
        if kind is aten._to_copy and "device" in given and given["device"] != args[0].device:
            dtype = given.get("dtype") or args[0].dtype
            return self._copied(args[0], torch.empty(args[0].shape, dtype=dtype, device=given["device"]))
        result = func(*args, **given)
        inputs = _tensors((args, {name: value for name, value in given.items() if name != "out"}))
        outputs = _tensors(result)
        if func.is_view or kind in FREE or not any(tensor.device == DEVICE for tensor in inputs + outputs):
            return result
        num_launches = KERNELS.get(kind, 1)
        self.num_launches += num_launches
        self.operations[kind.__name__] += num_launches
        self.num_bytes += _moved_bytes(kind, inputs, outputs)
        return result

    def _copied(self, source: Tensor, target: Tensor) -> Tensor:
        self.num_copies += 1
        self.copied_bytes += _bytes(source)
        return target


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _moved_bytes(kind: Any, inputs: list[Tensor], outputs: list[Tensor]) -> int:
    """Bytes that an operation reads and writes; see `Launches`."""
    if kind in CHOOSES:
        return 2 * sum(map(_bytes, outputs)) + sum(map(_bytes, inputs[1:]))
    if kind in PLACES:
        return sum(map(_bytes, inputs[1:])) + _bytes(inputs[-1])
    return sum(map(_bytes, inputs[kind in OVERWRITES :])) + sum(map(_bytes, outputs))


def _bytes(tensor: Tensor) -> int:
    """Of its elements; one that stands for several, as in an expanded tensor, once."""
    stored = [size if stride else min(size, 1) for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]
    return torch.Size(stored).numel() * tensor.element_size()


class Uncomputed(MeasuredBackend):
    """Plans on tensors without data, by the operations that an accelerator would be given, for `Launches` to count.

    Operations on tensors of which one lies on the device and one does not are refused, as an accelerator refuses them;
    so is what waits for a value. What works beside the steps is not counted.

    Args:
        conditions: as a measured run's; the device is not looked at.
    """

    def __init__(self, conditions: Conditions) -> None:
        super().__init__(conditions, batch_decode=False, device=DEVICE)
        self._clock = HostClock()

    def begin_repetition(self, areas: tuple[Area, ...]) -> None:
        """Sequences opened from now on live so; there is no allocator."""
        self.live_in(areas)
