"""Tensors on each tier: on the device, in the host's memory, in files; and the buffers that the others are read by."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from math import prod
from pathlib import Path
from threading import Event

import torch
from torch import Tensor

from kvbench.backend.background import Worker
from kvbench.backend.device import is_out_of_memory
from kvbench.backend.storage.base import Fill, Pair, Piece, Shape
from kvbench.ledger import OutOfMemory
from kvbench.plan.area import DEVICE, DISK, HOST, STAGING_TOKENS

PAGE_BYTES = 4096
TOUCHED_BYTES = 1 << 24
"""Of pages taken at once, some milliseconds' worth; between them, it is asked whether they are still wanted."""

unwanted: ContextVar[Event | None] = ContextVar("unwanted", default=None)
"""Set once nobody waits for what this thread prepares: pages that are not yet taken are left to who writes to them."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""How a file system says that it has no room."""


IN_PARTS = ("cpu",)
"""Devices that read what they hold in blocks or few bits part by part: it stays in a processor's cache."""


def reads_in_parts(device: torch.device) -> bool:
    """Whether parts are small there; elsewhere each is a launch, and they are as large as memory allows."""
    return device.type in IN_PARTS


class Memory:
    """Allocates on one tier.

    Args:
        tier: device, host or disk.
        device: where attention runs.
        folder: where files go; None takes the system's folder for temporary ones. A file has no name once it is open,
            so that nothing is left of it whatever happens.
    """

    def __init__(self, tier: str, device: torch.device, folder: Path | None = None) -> None:
        self.tier = tier
        self.device = device if tier == DEVICE else torch.device("cpu")
        self._pinned = tier == HOST and device.type == "cuda"
        self._folder = folder

    # Out of inference mode, so that a worker, and steps outside that mode, may write to what was made in it.
    @torch.inference_mode(False)
    def empty(self, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A new tensor; on a CPU its pages are taken here, where memory is asked for, not in later appends.

        Raises:
            OutOfMemory: the tier gives no memory.
            OSError: a file cannot be made, for another reason than want of room.
        """
        if self.tier == DISK:
            return self._mapped(size, dtype)
        tensor = self.untouched(size, dtype)
        touch(tensor)
        return tensor

    @torch.inference_mode(False)
    def untouched(self, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A new tensor in memory; on a CPU its pages are taken when they are first written to, or by `touch`.

        Raises:
            OutOfMemory: the device or the host gives no memory.
        """
        try:
            return torch.empty(size, dtype=dtype, device=self.device, pin_memory=self._pinned)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(torch.Size(size).numel() * dtype.itemsize, None, self.tier) from error

    def rows(self, old: Tensor, index: Tensor) -> Tensor:
        """A new tensor of chosen rows of another.

        Args:
            old: [num_rows, …].
            index: rows, int64 [new num_rows], on the CPU or the tensor's device.
        Raises:
            OutOfMemory: the tier gives no memory.
        """
        new = self.empty((len(index), *old.shape[1:]), old.dtype)
        torch.index_select(movable(old), 0, index.to(old.device), out=movable(new))
        return new

    def _mapped(self, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        num_elements = torch.Size(size).numel()
        num_bytes = num_elements * dtype.itemsize
        try:
            handle, path = tempfile.mkstemp(prefix="kvbench-", suffix=".kv", dir=self._folder)
            try:
                os.posix_fallocate(handle, 0, num_bytes)
                return torch.from_file(path, shared=True, size=num_elements, dtype=dtype).view(size)
            finally:
                os.close(handle)
                os.unlink(path)
        except (OSError, RuntimeError) as error:
            if getattr(error, "errno", None) not in FULL and not is_out_of_memory(error):
                raise
            raise OutOfMemory(num_bytes, None, DISK) from error


class Staging:
    """One or two buffers of K and V of a layer, which all sequences read through.

    Args:
        num_buffers: two let the next part come while this one is read.
        shapes: of what is read through them; each buffer is as large as the largest.
        memory: the device's.
        num_tokens: of a buffer.
    """

    def __init__(
        self, num_buffers: int, shapes: tuple[Shape, ...], memory: Memory, num_tokens: int = STAGING_TOKENS
    ) -> None:
        self._num_tokens = num_tokens
        sizes = [_elements(shape, num_tokens) for shape in shapes]
        # One tensor is cut up as each shape has it; of one shape, K and V have a tensor each.
        of_each = [max(map(sum, sizes))] if len(shapes) > 1 else [size for size in sizes[0] if size]
        self._buffers = [[memory.empty((size,), shapes[0].dtype) for size in of_each] for _ in range(num_buffers)]

    def _views(self, shape: Shape) -> list[Pair]:
        """Each buffer as K and V of a layer; of latents the one is the other."""
        num_keys, num_values = _elements(shape, self._num_tokens)
        found = []
        for tensors in self._buffers:
            keys = values = tensors[0][:num_keys].view(shape.of(self._num_tokens))
            if num_values:
                rest = tensors[1] if len(tensors) > 1 else tensors[0][num_keys:]
                values = rest[:num_values].view(shape.values_of(self._num_tokens))
            found.append((keys, values))
        return found

    def pieces(self, fills: list[Fill], worker: Worker | None, shape: Shape) -> Iterator[Piece]:
        """Bring part after part; each is read before the next is asked for.

        Args:
            fills: what brings each part.
            worker: brings the next part while this one is read; None brings each when it is asked for.
            shape: of the parts.
        """
        buffers = self._views(shape)
        if worker is None or len(buffers) == 1:
            for fill in fills:
                yield fill(*buffers[0])
            return
        if not fills:
            return
        coming = worker.submit(partial(fills[0], *buffers[0]))
        for number in range(1, len(fills) + 1):
            piece = coming.result()
            if number < len(fills):
                coming = worker.submit(partial(fills[number], *buffers[number % 2]))
            yield piece


def movable(tensor: Tensor) -> Tensor:
    """A view that torch gathers and scatters, which it does not do with dtypes of eight bits everywhere."""
    return tensor.view(torch.uint8) if tensor.dtype.itemsize == 1 else tensor


def _elements(shape: Shape, num_tokens: int) -> tuple[int, int]:
    """Of a buffer's K, and of its V beside."""
    values = 0 if shape.is_latent else prod(shape.values_of(num_tokens))
    return prod(shape.of(num_tokens)), values


def touch(tensor: Tensor) -> None:
    """Take the pages of a new tensor, on a CPU, as long as it is wanted."""
    if tensor.device.type != "cpu":
        return
    given_up, flat = unwanted.get(), tensor.view(torch.uint8).view(-1)
    for start in range(0, len(flat), TOUCHED_BYTES):
        if given_up is not None and given_up.is_set():
            return
        flat[start : start + TOUCHED_BYTES : PAGE_BYTES].zero_()


def fill(pairs: list[tuple[Tensor, Tensor]], count: int) -> None:
    """Take new tensors' pages, and copy the first slots into each from the old one."""
    for new, old in pairs:
        touch(new)
        if count:
            new.narrow(2, 0, count).copy_(old.narrow(2, 0, count))


def while_wanted(given_up: Event, work: Callable[[], object]) -> object:
    """Do work in this thread, whose new pages are wanted until the event is set."""
    before = unwanted.set(given_up)
    try:
        return work()
    finally:
        unwanted.reset(before)
