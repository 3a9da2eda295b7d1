"""A device with streams and events that is not here: it refuses what CUDA would let pass into wrong results."""

from threading import Lock


class FakeEvent:
    """A moment in a stream; one that was never recorded cannot be waited for."""

    def __init__(self, device=None):
        self.is_recorded = False

    def record(self):
        self.is_recorded = True

    def wait(self):
        assert self.is_recorded, "an event is waited for that was never recorded"


class FakeStream:
    """A stream, entered by one thread at a time: what a second one enters it for runs in no order."""

    def __init__(self, device=None):
        self._entered = Lock()

    def __enter__(self):
        assert self._entered.acquire(blocking=False), "a stream was entered twice"

    def __exit__(self, *raised):
        self._entered.release()

    def wait_stream(self, stream):
        pass

    def synchronize(self):
        pass


def use(monkeypatch):
    """Let torch's streams and events be these."""
    monkeypatch.setattr("torch.Stream", FakeStream)
    monkeypatch.setattr("torch.Event", FakeEvent)
    monkeypatch.setattr("torch.accelerator.current_stream", FakeStream)
