"""The folder of published measurements that the environment variable KVBENCH_MEASUREMENTS names."""

import os
from pathlib import Path

import pytest


def measurement(name):
    """The path of a file in it; the test is skipped where there is none."""
    folder = os.environ.get("KVBENCH_MEASUREMENTS")
    path = Path(folder, name) if folder else None
    if path is None or not path.exists():
        pytest.skip(f"no {name} in the folder that KVBENCH_MEASUREMENTS names")
    return path
