"""The folder of published measurements that the environment variable KVBENCH_MEASUREMENTS names."""

import os
from pathlib import Path

import pytest


def measurement(name):
    """The path of a file in it, or in a folder of it as pages name them; the test is skipped where there is none."""
    folder = os.environ.get("KVBENCH_MEASUREMENTS")
    path = next(iter(sorted(Path(folder).glob(f"**/{name}"))), None) if folder else None
    if path is None:
        pytest.skip(f"no {name} in the folder that KVBENCH_MEASUREMENTS names")
    return path
