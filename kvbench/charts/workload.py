"""What a scenario is: lengths, arrivals and live requests; of one session that only appends, its appends in order."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvbench.charts.axes import number_axis
from kvbench.charts.chart import Chart
from kvbench.charts.rows import plural
from kvbench.charts.sheet import Sheet, empty, label
from kvbench.charts.style import COLOURS, HATCHES
from kvbench.charts.text import number, shown_unit
from kvbench.results.provenance import model_notes
from kvbench.results.schema import Column
from kvbench.results.series import live_over_time, thinned

MAX_BINS = 30
FEW = 30
TIME = Column("s", "", "Time")

Numbers = Sequence[float] | np.ndarray
"""A figure a request, in whatever holds them."""


@dataclass(frozen=True, kw_only=True)
class WorkloadChart(Chart):
    """Lengths of prompts and outputs, arrivals and live requests over time; a panel that is all 0 is left out.

    Of one session whose turns only append, as the article's scenarios are: tokens of each append, and their sum.

    Args:
        scenario: its name.
        met_by: the strategy under which arrivals and live requests are these; "": none.
        prompt_tokens: [num_requests] tokens.
        output_tokens: [num_requests] tokens.
        arrival_s: [num_requests] seconds after the start.
        num_sessions: conversations that the requests are turns of.
        num_turns: their turns, where what is drawn is of whole sessions; 0: it is of turns.
        live: times in s in order, and the requests live from each of them on.
        live_title: what that panel shows.
        notes: sentences at the foot.
    """

    name: str = "workload"
    heading: str = "Workload"
    scenario: str
    met_by: str = ""
    prompt_tokens: Numbers
    output_tokens: Numbers
    arrival_s: Numbers
    num_sessions: int
    num_turns: int = 0
    live: tuple[Numbers, Numbers] | None = None
    live_title: str = "Live requests"
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of_run(
        cls, summary: pd.DataFrame, requests: pd.DataFrame, steps: pd.DataFrame, subject: str = ""
    ) -> "WorkloadChart":
        """A run's requests as the first strategy met them, in the last repetition.

        Args:
            summary: a row a strategy.
            requests: a row a request, strategy and repetition.
            steps: a row a step, strategy and repetition.
            subject: what was run on what.
        """
        met, done = (_of_first(summary, frame) for frame in (requests, steps))
        met, done = (frame[frame["repetition"] == met["repetition"].max()] for frame in (met, done))
        return cls._met(summary, met, live_over_time(done), subject)

    @classmethod
    def of_fleet(
        cls, summary: pd.DataFrame, requests: pd.DataFrame, timeline: pd.DataFrame, subject: str = ""
    ) -> "WorkloadChart":
        """A fleet's requests as the first strategy met them.

        Args:
            summary: a row a strategy.
            requests: a row a request and strategy.
            timeline: a row a stretch of time and strategy; may be empty.
            subject: what was run on what.
        """
        over = _of_first(summary, timeline)
        live = (over["time_s"].to_numpy(dtype=float), over["num_live"].to_numpy(dtype=float)) if len(over) else None
        return cls._met(summary, _of_first(summary, requests), live, subject)

    @classmethod
    def _met(
        cls, summary: pd.DataFrame, met: pd.DataFrame, live: tuple[np.ndarray, np.ndarray] | None, subject: str
    ) -> "WorkloadChart":
        return cls(
            subject=subject,
            scenario=str(summary["scenario"].iloc[0]),
            met_by=str(summary["strategy"].iloc[0]),
            prompt_tokens=met["prompt_tokens"].to_numpy(),
            output_tokens=met["output_tokens"].to_numpy(),
            arrival_s=met["arrival_s"].to_numpy(dtype=float),
            num_sessions=met["session"].nunique(),
            live=live,
            notes=model_notes(summary),
        )

    @property
    def only_appends(self) -> bool:
        """Whether it is one session of prompts alone."""
        return self.num_sessions == 1 and not np.any(self.output_tokens)

    @property
    def _counted(self) -> str:
        """How many requests, and how many sessions if they are fewer."""
        turns = self.num_turns or len(self.prompt_tokens)
        requests = f"{turns:,} request{'s' * (turns != 1)}"
        return requests if self.num_sessions >= turns else f"{requests} of {plural(self.num_sessions, 'session')}"

    def figure(self) -> Figure:
        """Draw it."""
        count = len(self.prompt_tokens)
        if self.only_appends:
            sheet = Sheet(f"Workload {self.scenario}: {plural(count, 'append')} in order", self.subject, (), self.notes)
            sizes, total = sheet.panels(1, 2, 3.2)
            _appends(sizes, total, np.asarray(self.prompt_tokens, dtype=float))
            return sheet.finish()
        met = f" as {self.met_by} met it" if self.met_by else ""
        title = f"Workload {self.scenario}{met}: {self._counted}"
        sheet = Sheet(title, self.subject, (), self.notes)
        outputs, times = np.any(self.output_tokens), np.sort(np.asarray(self.arrival_s, dtype=float))
        shown = 2 + bool(outputs) + (self.live is not None)
        prompts, *others = sheet.panels(-(-shown // 2), 2, 2.7 * -(-shown // 2), count=shown)
        what = "Sessions" if count < self.num_turns else "Requests"
        _lengths(prompts, "Prompt lengths", "Prompt (tokens)", f"{what} (count)", self.prompt_tokens, 0)
        if outputs:
            _lengths(others.pop(0), "Output lengths", "Output (tokens)", f"{what} (count)", self.output_tokens, 1)
        _over_time(others[0], "Arrivals", f"{what} arrived (count)", times, np.arange(1, len(times) + 1))
        if self.live is not None:
            _over_time(others[1], self.live_title, f"{what} live (count)", *self.live)
        return sheet.finish()

    def sentences(self) -> list[str]:
        """How many requests, and how many tokens."""
        tokens = int(np.sum(self.prompt_tokens) + np.sum(self.output_tokens))
        return [f"{plural(len(self.prompt_tokens), 'request')}; {number(tokens, 6)} tokens of prompts and outputs."]


def _of_first(summary: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["strategy"].astype(str) == str(summary["strategy"].iloc[0])).to_numpy(dtype=bool)]


def _appends(sizes: Axes, total: Axes, tokens: np.ndarray) -> None:
    """Tokens of each append, and their sum so far."""
    numbers = np.arange(1, len(tokens) + 1)
    label(sizes, "Append (number)", "Appended (tokens)", "Each append")
    sizes.bar(numbers, tokens, 0.8, color=COLOURS[0], edgecolor="white", linewidth=0.5)
    sizes.grid(False, axis="x")
    label(total, "Append (number)", "In the cache (tokens)", "All appends so far")
    total.plot([0, *numbers], [0, *np.cumsum(tokens)], color=COLOURS[2], marker="." if len(tokens) < FEW else "")
    for axes in (sizes, total):
        number_axis(axes, "x", numbers, log=False, whole=True)
        number_axis(axes, "y", [], log=False)
        axes.set_ylim(bottom=0)


def _lengths(axes: Axes, title: str, x_label: str, y_label: str, lengths: Numbers, number: int) -> None:
    """How many have a length."""
    label(axes, x_label, y_label, title)
    values = np.asarray(lengths, dtype=float)
    if not values.size or not values.any():
        empty(axes, "all are 0" if values.size else "no requests")
        return
    distinct = np.unique(values)
    if distinct.size == 1:
        half = max(0.5, 0.02 * distinct[0])
        bins = [distinct[0] - half, distinct[0] + half]
        axes.set_xlim(max(0.0, distinct[0] - 10 * half), distinct[0] + 10 * half)
    else:
        whole = max(1.0, np.ceil((distinct[-1] - distinct[0] + 1) / MAX_BINS))
        bins = np.arange(distinct[0] - 0.5, distinct[-1] + whole + 0.5, whole).tolist()
    axes.hist(values, bins, color=COLOURS[number], hatch=HATCHES[number], edgecolor="white", linewidth=0.5)
    number_axis(axes, "x", values, log=False)
    number_axis(axes, "y", [], log=False, whole=True)
    axes.grid(False, axis="x")


def _over_time(axes: Axes, title: str, y_label: str, times_s: Numbers, counts: Numbers) -> None:
    """A count that steps at times."""
    times = np.asarray(times_s, dtype=float)
    unit = shown_unit(TIME, times[-1:])
    label(axes, TIME.axis(unit.name), y_label, title)
    if not times.size:
        empty(axes, "no requests")
        return
    x, y = thinned(times / unit.divisor, np.asarray(counts))
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
