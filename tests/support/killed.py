"""Sweeps of tiny points, and workers that are killed at any line of what they run."""

import os
import signal
import sys

import pandas as pd

from kvbench.decide.manifest import Axis, Manifest
from kvbench.decide.shards import DONE, PointOutcome
from kvbench.decide.work import Places, SweepWorker
from kvbench.results.results import Results

ROWS = 3
"""Of each point's requests."""


def manifest_of(number, **given):
    """A sweep of so many points over one key."""
    axis = Axis(key="x", lines=tuple(f"x={value}" for value in range(number)), values=tuple(range(number)))
    return Manifest(**{"name": "tiny", "axes": (axis,), "configuration": {"trusted": []}, "versions": {}, **given})


def outcome_of(point, **made):
    """What comes of a point."""
    summary = pd.DataFrame({"strategy": ["a"], "outcome": ["completed"], "value": [point.number * 10]})
    requests = pd.DataFrame(
        {
            "strategy": pd.Categorical(["a"] * ROWS),
            "repetition": 0,
            "session": range(ROWS),
            "turn": 0,
            "outcome": "completed",
            "arrival_s": 0.5,
            "latency_s": float(point.number),
        }
    )
    environment = {"scenario": "tiny", "overrides": list(point.lines), "header": ["tiny: some", "on nothing"], **made}
    return PointOutcome(state=DONE, results=Results(summary=summary, requests=requests, environment=environment))


def worker(folder, manifest, carry_out=outcome_of, **how):
    """A worker that waits for nobody in vain: it says so."""

    def waits(seconds):
        raise AssertionError("all is claimed by others that live")

    return SweepWorker(manifest, Places(folder), carry_out, **{"wait": waits, **how})


def killed(number, run):
    """Run something in a process that is killed as it begins the so many-th line of the parts that write; whether it
    was: it may have come to its end before.
    """
    child = os.fork()
    if not child:
        left = number

        def of_line(frame, event, argument):
            nonlocal left
            if event == "line":
                left -= 1
                if left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return of_line

        def of_call(frame, event, argument):
            return of_line if "kvbench/decide/" in frame.f_code.co_filename else None

        status = 1
        try:
            sys.settrace(of_call)
            run()
            status = 0
        finally:
            sys.settrace(None)
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"it ended by itself: {status}"
    return status == signal.SIGKILL
