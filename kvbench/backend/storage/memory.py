"""Tensors on each tier: on the device, in the host's memory, in files."""

import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from kvbench.area import DEVICE, DISK, HOST
from kvbench.outcome import OutOfMemory

PAGE_BYTES = 4096


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
        self._pinned = tier == HOST and device.type != "cpu"
        self._folder = folder

    def empty(self, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A new tensor; on a CPU its pages are taken here, where memory is asked for, not in later appends.

        Raises:
            OutOfMemory: there is no room on the disk.
            RuntimeError: the device or the host gives no memory.
        """
        if self.tier == DISK:
            return self._mapped(size, dtype)
        tensor = torch.empty(size, dtype=dtype, device=self.device, pin_memory=self._pinned)
        if tensor.device.type == "cpu":
            tensor.view(torch.uint8).view(-1)[::PAGE_BYTES].zero_()
        return tensor

    def _mapped(self, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        num_elements = torch.Size(size).numel()
        num_bytes = num_elements * dtype.itemsize
        try:
            handle, path = tempfile.mkstemp(prefix="kvbench-", suffix=".kv", dir=self._folder)
        except OSError as error:
            raise OutOfMemory(num_bytes, None, DISK) from error
        try:
            os.posix_fallocate(handle, 0, num_bytes)
            return torch.from_file(path, shared=True, size=num_elements, dtype=dtype).view(size)
        except OSError as error:
            raise OutOfMemory(num_bytes, None, DISK) from error
        finally:
            os.close(handle)
            os.unlink(path)
