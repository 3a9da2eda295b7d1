"""Which format a trace's file is of: by its columns or keys, never by its name."""

import itertools
import json
from pathlib import Path
from typing import Any

from kvbench.messages import cut, listed, printable
from kvbench.workload.trace_file import TraceError, csv_header, open_text
from kvbench.workload.trace_formats import CSV, FORMATS, JSON
from kvbench.workload.trace_json import read_json

LOOKED_AT = 100
"""Rows whose keys are looked at: not each has all that a format allows."""


def recognised(path: Path) -> str:
    """The name of a file's format.

    Args:
        path: the file, plain or gzip; or a folder of files of one format.
    Raises:
        TraceMissing: there is no such file.
        TraceError: it cannot be read, or it fits none or several; says which is nearest.
    """
    kind, keys = _told(path)
    fitting = [name for name, one in FORMATS.items() if one.fits(kind, keys)]
    # What has the keys of Mooncake alone is of Mooncake, though AIPerf takes it, too.
    fitting = ["mooncake"] if fitting == ["mooncake", "aiperf"] else fitting
    if len(fitting) == 1:
        return fitting[0]
    shown = listed([cut(printable(key)) for key in sorted(keys)])
    if fitting:
        raise TraceError(f"{path} may be {' or '.join(fitting)}, by its keys {shown}; say which with format=")
    raise TraceError(f"{path} is of no format of traces: its {kind} has the keys {shown}.\n  {_nearest(kind, keys)}")


def _nearest(kind: str, keys: frozenset[str]) -> str:
    def likeness(name: str) -> float:
        wanted = {*FORMATS[name].keys, *FORMATS[name].others}
        return len(wanted & keys) / len(wanted)

    of_kind = [name for name, one in FORMATS.items() if one.kind == kind]
    name = max(of_kind, key=likeness)
    if not likeness(name):
        time, *lengths = FORMATS["plain"].keys
        own = f"; a CSV of your own has the columns {time} (in seconds), {', '.join(lengths)}" if kind == CSV else ""
        return f"there are: {', '.join(FORMATS)}{own}"
    one = FORMATS[name]
    lacking = [key for key in one.keys if key not in keys]
    found = sorted(keys.intersection(one.without))
    said = f"it lacks {', '.join(lacking)}" if lacking else f"but none with {', '.join(found)} is"
    return f"The nearest is {name}; {said}. There are: {', '.join(FORMATS)}"


def _told(path: Path) -> tuple[str, frozenset[str]]:
    """CSV or JSON, and the columns or keys."""
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix == ".json" and not each.name.startswith("."))
        if not files:
            raise TraceError(f"{path} has no file named *.json; allowed is a folder with a session a file")
        return JSON, _keys_of(read_json(files[0]))
    with open_text(path) as text:
        lines = (line for line in text if not line.isspace())
        first = next(lines, "")
        is_csv = first.lstrip()[:1] not in ("{", "[")
        more = [] if is_csv else itertools.islice(lines, LOOKED_AT - 1)
        rows = [_decoded(line) for line in (first, *more)]
    if is_csv:
        return CSV, frozenset(csv_header(path))
    if all(isinstance(row, dict) for row in rows):
        return JSON, frozenset().union(*rows)
    if isinstance(rows[0], dict) and len(rows) > 1 and not first.rstrip().endswith(("{", "[", ",")):
        return JSON, frozenset(rows[0])  # a later line is damaged: its reader says which
    return JSON, _keys_of(read_json(path))


def _decoded(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _keys_of(document: Any) -> frozenset[str]:
    rows = document[:LOOKED_AT] if isinstance(document, list) else [document]
    return frozenset().union(*(row for row in rows if isinstance(row, dict)))
