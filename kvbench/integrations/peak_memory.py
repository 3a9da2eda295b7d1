"""What tensors hold: storages counted once each, and the most that is held while torch operations run."""

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def storages_in(value: object) -> Iterator[torch.UntypedStorage]:
    """The storages of all tensors in a value: a tensor, one made of several (packed bits, scales), or a collection."""
    if isinstance(value, torch.Tensor):
        parts = value.__tensor_flatten__()[0] if hasattr(value, "__tensor_flatten__") else ()
        if not parts:
            yield value.untyped_storage()
        for part in parts:
            yield from storages_in(getattr(value, part))
    elif isinstance(value, dict):
        for part in value.values():
            yield from storages_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from storages_in(part)


def sizes_of(value: object) -> dict[int, int]:
    """Bytes of each storage in a value, by the storage's identity."""
    return {storage._cdata: storage.nbytes() for storage in storages_in(value)}


class PeakMemory(TorchDispatchMode):
    """While it is on, counts the storages that operations make and those that die, of a value's and of theirs.

    Args:
        holder: the value that holds tensors at the start.
        given: tensors of others that operations may return or view; not counted.
    Attributes:
        peak_bytes: the most that was alive at once of both, copies held twice in passing and scratch included.
    """

    def __init__(self, holder: object, given: object) -> None:
        super().__init__()
        self.peak_bytes = 0
        self._live_bytes = 0
        self._given = frozenset(sizes_of(given))
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        for storage in storages_in(holder):
            self._count(storage)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._alive.clear()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if type(result) is torch.Tensor:
            self._count(result.untyped_storage())
        else:
            for storage in storages_in(result):
                self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._alive or key in self._given:
            return
        num_bytes = storage.nbytes()
        self._live_bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)
        self._alive[key] = weakref.ref(storage, lambda _: self._died(key, num_bytes))

    def _died(self, key: int, num_bytes: int) -> None:
        del self._alive[key]
        self._live_bytes -= num_bytes
