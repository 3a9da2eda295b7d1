"""Count live tensor storages independently of kvbench's own books."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveStorages(TorchDispatchMode):
    """Sees every allocation that a torch operation makes while it is on, and every storage that dies.

    Attributes:
        live_bytes: bytes of storages made under the mode and still alive.
        peak_bytes: the most there ever were.
    """

    def __init__(self):
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self._seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._watch(leaf.untyped_storage(), known)
        return result

    def _watch(self, storage, known):
        key = storage._cdata
        if key in known or key in self._seen:
            return
        self._seen.add(key)
        num_bytes = storage.nbytes()
        self.live_bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._died, key, num_bytes)

    def _died(self, key, num_bytes):
        self._seen.discard(key)
        self.live_bytes -= num_bytes
