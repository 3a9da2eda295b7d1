"""Staging buffers: where a staged area's tokens come to the device, part by part, to be read."""

from collections.abc import Iterator
from functools import partial

from kvbench.backend.background import Worker
from kvbench.backend.storage.base import Fill, Piece, Shape
from kvbench.backend.storage.memory import Memory
from kvbench.plan.area import STAGING_TOKENS


class Staging:
    """One or two buffers of K and V of a layer, which all sequences read through.

    Args:
        num_buffers: two let the next part come while this one is read.
        shape: of the buffers.
        memory: the device's.
    """

    def __init__(self, num_buffers: int, shape: Shape, memory: Memory) -> None:
        size = shape.of(STAGING_TOKENS)
        self._buffers = [(memory.empty(size, shape.dtype), memory.empty(size, shape.dtype)) for _ in range(num_buffers)]

    def pieces(self, fills: list[Fill], worker: Worker | None) -> Iterator[Piece]:
        """Bring part after part; each is read before the next is asked for.

        Args:
            fills: what brings each part.
            worker: brings the next part while this one is read; None brings each when it is asked for.
        """
        if worker is None or len(self._buffers) == 1:
            for fill in fills:
                yield fill(*self._buffers[0])
            return
        coming = worker.submit(partial(fills[0], *self._buffers[0])) if fills else None
        for number in range(1, len(fills) + 1):
            piece = coming.result()
            if number < len(fills):
                coming = worker.submit(partial(fills[number], *self._buffers[number % 2]))
            yield piece
