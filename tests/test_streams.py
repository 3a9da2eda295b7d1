"""Work in a second stream of a device, from several threads, on a device that is not here."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch

from kvbench.backend.background import worker_of
from tests.support import device


def test_two_threads_do_not_enter_a_stream_at_once(monkeypatch):
    device.use(monkeypatch)
    worker = worker_of(torch.device("cuda"), steps_back=False)
    first_is_in, second_is_in = Event(), Event()

    def first():
        first_is_in.set()
        return second_is_in.wait(0.05)  # in vain, where the second has to wait

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(worker.submit, first)
        assert first_is_in.wait(10)
        other = pool.submit(worker.submit, second_is_in.set)
        assert one.result().result() is False
        other.result().result()
    assert second_is_in.is_set()


def test_work_that_fails_leaves_the_stream_to_others(monkeypatch):
    device.use(monkeypatch)
    worker = worker_of(torch.device("cuda"), steps_back=False)

    def failing():
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        worker.submit(failing)
    assert worker.submit(lambda: 7).result() == 7
