"""A device with streams, events and pinned memory that is not here: wrong tokens where CUDA would give them.

Work is done when its stream comes to it: when somebody waits for the stream, or later work in it needs what it did. So
what is read in another stream, or on the host, without waiting is what was there before: NaN where nothing was.
"""

import math
from collections import deque
from threading import Lock, RLock, get_ident, local
from typing import ClassVar

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
VIEWS = {"narrow", "view", "unflatten", "permute", "transpose", "expand", "as_strided", "unsqueeze", "unbind", "chunk"}
VIEWS |= {"__get__", "is_contiguous", "stride", "dim", "size", "data_ptr", "untyped_storage", "set_"}
_running, _here = RLock(), local()
held: list[int] = []
"""Cycles for which the device was told to wait."""
waits: list[int] = []
"""Threads that waited on the host for the device, one a time."""


class FakeStream:
    """A stream, entered by one thread at a time: what a second one enters it for runs in no order."""

    all: ClassVar[list["FakeStream"]] = []
    num_done = 0

    def __init__(self, device=None):
        self._entered, self._todo = Lock(), deque()
        FakeStream.all.append(self)

    def __enter__(self):
        assert self._entered.acquire(blocking=False), "a stream was entered twice"
        self._before, _here.stream = current(), self

    def __exit__(self, *raised):
        _here.stream = self._before
        self._entered.release()

    def give(self, work):
        """Work for later; which it is in the stream."""
        with _running:
            self._todo.append(work)
            return self.num_done + len(self._todo)

    def run(self, until=math.inf):
        with _running:
            while self._todo and self.num_done < until:
                work, self.num_done = self._todo.popleft(), self.num_done + 1
                work()

    def synchronize(self):
        waits.append(get_ident())
        self.run()


def current(device=None):
    if not hasattr(_here, "stream"):
        _here.stream = FakeStream.all[0]
    return _here.stream


class FakeEvent:
    """A moment in a stream; one that was never recorded, or that the device has not come to, cannot be read."""

    clock_ms = 0
    at = time_ms = None

    def __init__(self, device=None, enable_timing=False):
        self._is_timed = enable_timing

    def record(self):
        self._stream = current()
        self.at = self._stream.give(self._come)

    def _come(self):
        FakeEvent.clock_ms += 1
        self.time_ms = FakeEvent.clock_ms

    def wait(self):
        assert self.at is not None, "an event is waited for that was never recorded"
        current().give(lambda: self._stream.run(self.at))

    def synchronize(self):
        assert self.at is not None, "an event is waited for that was never recorded"
        waits.append(get_ident())
        self._stream.run(self.at)

    def elapsed_time(self, end):
        assert self._is_timed, "an event without a time is read"
        assert None not in (self.at, end.at), "an event is read that was never recorded"
        assert None not in (self.time_ms, end.time_ms), "an event is read before the device has come to it"
        return end.time_ms - self.time_ms


def place(device=None, pin_memory=False):
    """The kind of tensor that lives there."""
    if device is not None and torch.device(device).type == "cuda":
        return OnDevice
    return Pinned if pin_memory else torch.Tensor


class _Placed(torch.Tensor):
    """Lies in the host's memory, and behaves as if it did elsewhere."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs, name, first = dict(kwargs or {}), func.__name__, args[0]
        if func == torch.Tensor.device.__get__:
            return CUDA if isinstance(first, OnDevice) else CPU
        match name:
            case "is_pinned":
                return isinstance(first, Pinned)
            case "copy_":
                return _copied(*args, **kwargs)
            case "__setitem__":
                return _copied(first[args[1]], args[2])
            case "to" | "_sent" if isinstance(args[1], torch.device):
                return first if args[1].type == first.device.type else _copied(_like(first, place(args[1])), first)
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        is_there = any(isinstance(each, OnDevice) for each in given)
        if name not in VIEWS and is_there:
            assert all(isinstance(each, OnDevice) for each in given if each.dim()), f"{name} of tensors on two devices"
            current().run()
            if name in ("item", "tolist", "nonzero", "__bool__", "equal"):
                waits.append(get_ident())
        new = OnDevice if place(kwargs.pop("device", None)) is OnDevice or is_there else torch.Tensor
        with torch._C.DisableTorchFunctionSubclass():
            kinds = {each.untyped_storage().data_ptr(): type(each) for each in given}
            return tree_map_only(
                torch.Tensor,
                lambda each: each.as_subclass(kinds.get(each.untyped_storage().data_ptr(), new)),
                func(*args, **kwargs),
            )


class OnDevice(_Placed):
    """On the device."""

    places: ClassVar[set[int]] = set()
    """Where tensors were made there."""


class Pinned(_Placed):
    """In pinned memory of the host."""


def _like(tensor, kind):
    with torch._C.DisableTorchFunctionSubclass():
        return torch.empty_like(tensor).as_subclass(kind)


def _copied(target, source, non_blocking=False):
    def work():
        with torch._C.DisableTorchFunctionSubclass():
            torch.Tensor.copy_(target, source)

    ends = [isinstance(each, OnDevice) for each in (target, source)]
    if not any(ends):
        work()
        return target
    current().give(work)
    if not all(ends):
        host = source if ends[0] else target
        is_direct = isinstance(host, Pinned) and host.is_contiguous()
        if not non_blocking or (ends[0] and not is_direct):  # torch reads pageable memory before it returns
            current().synchronize()
        elif not is_direct:
            waits.append(get_ident())
    return target


_to = torch.Tensor.to


def _sent(tensor, where, *dtype):
    """What `to` gives of a tensor of the host's, too, which no subclass hears of."""
    if not isinstance(where, torch.device) or where.type == "cpu" or isinstance(tensor, OnDevice):
        return _to(tensor, where, *dtype)
    cast = _to(tensor, *dtype) if dtype else tensor
    return _copied(_like(cast, OnDevice), cast)


def _reset(device):
    assert OnDevice.places, "an allocator's peaks are reset before its first use"


def on_device(tensor):
    """A copy on the device."""
    return tensor.clone().as_subclass(OnDevice)


def use(monkeypatch):
    """Let torch's streams, events and memory be these."""
    for each in (FakeStream.all, waits, held, OnDevice.places):
        each.clear()
    _here.stream = FakeStream()
    for name in ("empty", "zeros", "ones", "arange", "tensor", "empty_like", "randn"):
        monkeypatch.setattr(torch, name, _making(getattr(torch, name), name.startswith("empty")))
    monkeypatch.setattr("torch.Stream", FakeStream)
    monkeypatch.setattr("torch.Event", FakeEvent)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.current_stream", current)
    monkeypatch.setattr("torch.accelerator.synchronize", lambda device: [each.synchronize() for each in FakeStream.all])
    monkeypatch.setattr(torch.Tensor, "to", _sent)
    monkeypatch.setattr("torch.cuda._sleep", held.append)
    monkeypatch.setattr("torch.accelerator.empty_cache", lambda: None)
    monkeypatch.setattr("torch.accelerator.reset_peak_memory_stats", _reset)
    monkeypatch.setattr("torch.accelerator.memory_stats", lambda device: {})


def _making(make, is_empty):
    def made(*args, device=None, pin_memory=False, **kwargs):
        with torch._C.DisableTorchFunctionSubclass():
            tensor = make(*args, **kwargs)
            if is_empty and tensor.is_floating_point():
                tensor.fill_(math.nan)
            kind = place(device, pin_memory)
            if kind is OnDevice:
                OnDevice.places.add(tensor.data_ptr())
            return tensor.as_subclass(kind)

    return made
