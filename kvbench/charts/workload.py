"""What a scenario is: how long its prompts and outputs are, when requests arrive, how many are live."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvbench.charts.canvas import canvas, empty, finish, label
from kvbench.charts.rows import thinned
from kvbench.charts.style import COLOURS, HATCHES
from kvbench.charts.units import number_axis, shown_unit
from kvbench.results.provenance import model_notes
from kvbench.results.schema import Column

MAX_BINS = 30
FEW = 30
US_PER_S = 1e6
TIME = Column("s", "", "Time")


def workload_chart(
    name: str,
    prompt_tokens: Sequence[int],
    output_tokens: Sequence[int],
    arrival_s: Sequence[float],
    live: tuple[Sequence[float], Sequence[int]] | None = None,
    notes: Sequence[str] = (),
) -> Figure:
    """Lengths of prompts and outputs, arrivals over time and live requests over time.

    Args:
        name: the scenario's name.
        prompt_tokens: [num_requests] tokens.
        output_tokens: [num_requests] tokens.
        arrival_s: [num_requests] seconds after the start.
        live: times in s in order, and the requests live from each of them on.
        notes: sentences at the foot.
    """
    figure, (prompts, outputs, arrivals, lives) = canvas(2, 2, 5.4)
    count = len(prompt_tokens)
    _lengths(prompts, "Prompt lengths", "Prompt (tokens)", prompt_tokens, 0)
    _lengths(outputs, "Output lengths", "Output (tokens)", output_tokens, 1)
    times = np.sort(np.asarray(arrival_s, dtype=float))
    _over_time(arrivals, "Arrivals", "Requests arrived (count)", times, np.arange(1, len(times) + 1))
    live_times, live_counts = ([], []) if live is None else live
    _over_time(lives, "Live requests", "Requests live (count)", live_times, live_counts)
    return finish(figure, f"Workload {name}: {count:,} request{'' if count == 1 else 's'}", notes=notes)


def run_workload_chart(summary: pd.DataFrame, requests: pd.DataFrame, steps: pd.DataFrame) -> Figure:
    """The workload of a run: its requests as the first strategy met them, in the last repetition.

    Args:
        summary: a row a strategy.
        requests: a row a request, strategy and repetition.
        steps: a row a step, strategy and repetition.
    """
    first = summary["strategy"].iloc[0]
    met, done = (frame[(frame["strategy"] == first).to_numpy()] for frame in (requests, steps))
    met, done = (frame[frame["repetition"] == met["repetition"].max()] for frame in (met, done))
    lengths = (met["prompt_tokens"].to_numpy(), met["output_tokens"].to_numpy(), met["arrival_s"].to_numpy())
    live = _live(done)
    return workload_chart(f"{summary['scenario'].iloc[0]} as {first} met it", *lengths, live, model_notes(summary))


def _live(steps: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """From when on how many requests were computed: none while idle, and none after the last step."""
    begun_s = (steps["end_s"] - steps["step_us"] / US_PER_S).to_numpy()
    idle_s = steps["idle_us"].to_numpy() / US_PER_S
    waited = idle_s > 0
    last_s = steps["end_s"].to_numpy()[-1:]
    times = np.concatenate([(begun_s - idle_s)[waited], begun_s, last_s])
    counts = np.concatenate([np.zeros(waited.sum(), int), steps["num_live"].to_numpy(), np.zeros(len(last_s), int)])
    order = np.argsort(times, kind="stable")
    changed = order[np.append(True, np.diff(counts[order]) != 0)]
    return times[changed], counts[changed]


def _lengths(axes: Axes, title: str, x_label: str, lengths: Sequence[int], number: int) -> None:
    """How many requests have a length."""
    label(axes, x_label, "Requests (count)", title)
    values = np.asarray(lengths, dtype=float)
    if not values.size or not values.any():
        empty(axes, "all are 0" if values.size else "no requests")
        return
    distinct = np.unique(values)
    if distinct.size == 1:
        half = max(0.5, 0.02 * distinct[0])
        bins = np.array([distinct[0] - half, distinct[0] + half])
        axes.set_xlim(max(0.0, distinct[0] - 10 * half), distinct[0] + 10 * half)
    else:
        whole = max(1.0, np.ceil((distinct[-1] - distinct[0] + 1) / MAX_BINS))
        bins = np.arange(distinct[0] - 0.5, distinct[-1] + whole + 0.5, whole)
    axes.hist(values, bins, color=COLOURS[number], hatch=HATCHES[number], edgecolor="white", linewidth=0.5)
    number_axis(axes, "x", values, log=False)
    number_axis(axes, "y", [], log=False, whole=True)
    axes.grid(False, axis="x")


def _over_time(axes: Axes, title: str, y_label: str, times_s: Sequence[float], counts: Sequence[int]) -> None:
    """A count that steps at times."""
    unit = shown_unit(TIME, times_s)
    label(axes, TIME.axis(unit.name), y_label, title)
    if not len(times_s):
        empty(axes, "not known before a run")
        return
    x, y = thinned(np.asarray(times_s, dtype=float) / unit.divisor, np.asarray(counts))
    axes.plot(
        np.append(x[:1], x),
        np.append([0], y),
        drawstyle="steps-post",
        color=COLOURS[2],
        marker="." if len(x) < FEW else "",
    )
    number_axis(axes, "x", x, log=False)
    number_axis(axes, "y", y, log=False, whole=True)
    axes.set_ylim(0, max(1.0, y.max() * 1.08))
    if x.max() == 0:
        axes.set_xlim(-0.05, 1)
