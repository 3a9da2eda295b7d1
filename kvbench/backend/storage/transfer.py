"""Copies between a device and the host's memory."""

import torch
from torch import Tensor


def sent(target: Tensor, source: Tensor) -> Tensor | None:
    """Copy as `carry` does; from a device to pinned memory behind what the current stream was given.

    Returns:
        Where tokens arrive, once the device has come to an event behind them: the target, or what the host copies there
        then, since a link takes what lies together; None: they are there.
    """
    if source.device.type != "cuda" or not target.is_pinned():
        carry(target, source)
        return None
    arriving = target
    if not target.is_contiguous():
        arriving = torch.empty(target.shape, dtype=target.dtype, pin_memory=True)
    arriving.copy_(source.to(target.dtype), non_blocking=True)
    return arriving


def carry(target: Tensor, source: Tensor) -> None:
    """Copy, and cast where dtypes differ; between a device and the host by pinned memory that lies together.

    From or to any other memory, torch copies by pageable memory of its own: a fraction of the rate, and the host waits
    in both directions.

    Args:
        target: where to. On the host it holds the tokens when this returns; on a device, a copy from pinned memory
            stands behind what the current stream was given.
        source: as target.
    """
    if target.device == source.device or "cuda" not in (target.device.type, source.device.type):
        target.copy_(source)
        return
    is_leaving = target.device.type == "cpu"
    if target.dtype != source.dtype:  # the device casts, so that no more than what is held goes over the link
        if is_leaving:
            source = source.to(target.dtype)
        else:
            near = torch.empty_like(source, device=target.device)
            carry(near, source)
            target.copy_(near)
            return
    host = target if is_leaving else source
    if host.is_pinned() and host.is_contiguous():
        target.copy_(source, non_blocking=not is_leaving)
        return
    staged = torch.empty(host.shape, dtype=host.dtype, pin_memory=True)
    staged.copy_(source)
    target.copy_(staged, non_blocking=not is_leaving)
