"""Where files lie that are made once and kept."""

import os
from pathlib import Path

VARIABLE = "KVBENCH_CACHE"


def cache_folder() -> Path:
    """The folder of kept files: $KVBENCH_CACHE, $XDG_CACHE_HOME/kvbench or ~/.cache/kvbench; it may not exist yet."""
    own, shared = os.environ.get(VARIABLE), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own).expanduser().absolute()
    return (Path(shared) if shared and Path(shared).is_absolute() else Path.home() / ".cache") / "kvbench"
