"""The deployments that a search found: tables for a terminal, and the front as a chart."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvbench.charts.axes import number_axis
from kvbench.charts.chart import Chart
from kvbench.charts.frame import frame_text
from kvbench.charts.sheet import Sheet, label
from kvbench.charts.style import INK, Settings
from kvbench.charts.text import (
    lacking,
    listed,
    markdown_escape,
    number,
    one_line,
    percent,
    ratio_text,
    shown_unit,
    value_text,
)
from kvbench.results.columns import ends
from kvbench.results.conditions import UNTOLD, column_of, stated
from kvbench.results.front import MOST_COLOURED
from kvbench.results.schema import SUMMARY

Goals = Sequence[tuple[str, bool]]
"""Figures, and whether more of each is better."""
SATISFIED, VIOLATED, BETTER = "satisfied", "violated", "better"
GROUPED = ("strategy", "hardware")
"""By what deployments are coloured, where several are tried."""
RING: Settings = {"marker": "o", "markersize": 12, "markerfacecolor": "none", "markeredgecolor": INK}
MOST_KEYS = 6
MOST_NEXT = 5
"""Deployments that are shown where nothing is known to hold."""
NOT_CHOSEN = "Hollow: does not hold, or it cannot be told; ringed: the front"


def tuned_text(
    rows: pd.DataFrame,
    judged: pd.DataFrame,
    against: pd.DataFrame,
    *,
    keys: Sequence[str],
    goals: Goals,
    subject_to: Sequence[str],
    said: Sequence[str],
    untold: Mapping[str, Sequence[str]] | None = None,
    importance: Mapping[str, float] | None = None,
) -> str:
    """What was found, for a terminal.

    Args:
        rows: as in `api.tuning.Tuned`.
        judged: likewise.
        against: likewise.
        keys: what was searched.
        goals: what was wanted.
        subject_to: what had to hold.
        said: lines at the top.
        untold: strategies that lack a figure, by why.
        importance: by key the share of the first goal's spread that goes with its value.
    """
    figures = figures_of(goals, subject_to, rows)
    varied = varied_keys(rows, keys)
    lines = [*map(one_line, said), ""]
    front = standing(rows, goals)
    if len(front):
        alike = [int((rows["merged"] == each).sum()) - 1 for each in front["deployment"]]
        lines += [frame_text(_shown(front, varied, figures).assign(**({"alike": alike} if any(alike) else {})))]
    else:
        nearest = rows[rows["verdict"] == UNTOLD].sort_values(goals[0][0], ascending=not goals[0][1]).head(MOST_NEXT)
        nearest = nearest if len(nearest) else rows[rows["interval_from"].notna()].head(MOST_NEXT)
        lines += ["Nothing that was tried is known to hold. The nearest:"]
        lines += [frame_text(_shown(nearest, varied, ["verdict", *figures]))]
    if untold:
        lines += ["", *lacking(untold)]
    if importance:
        shares = listed([f"{one_line(key)} {percent(share)}" for key, share in importance.items()], MOST_KEYS)
        lines += ["", f"What {goals[0][0]} depends on, of its spread among those tried: {shares}."]
    lines += ["", "On requests that were not searched on:"]
    shown = _shown(judged, varied, ["verdict", *figures])
    lines += [frame_text(pd.concat([judged[["role"]], shown], axis=1))]
    return "\n".join([*lines, "", *compared(judged, against)])


def figures_of(goals: Goals, subject_to: Sequence[str], rows: pd.DataFrame) -> list[str]:
    """The columns of what was wanted, and of what had to hold."""
    names = [column for column, _ in goals]
    names += [column_of(each.measure) for text in subject_to for each in stated(text, "subject_to", "")]
    return list(dict.fromkeys(names))


def varied_keys(rows: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Keys in which deployments differ; the first where there is none."""
    return [key for key in keys if rows[key].astype(str).nunique() > 1] or list(keys[:1])


def standing(rows: pd.DataFrame, goals: Goals) -> pd.DataFrame:
    """Those of the front that stand for themselves, the best in the first goal first."""
    front = rows[rows["on_front"] & (rows["merged"] == rows["deployment"])]
    return front.sort_values(goals[0][0], ascending=not goals[0][1], kind="stable")


def settings_of(row: Mapping[Hashable, Any], keys: Sequence[str]) -> str:
    """The keys of a deployment that matter there, by their last words."""
    given = ((key.rpartition(".")[2], row[key]) for key in keys)
    return ", ".join(f"{one_line(name)} {_value(value)}" for name, value in given if not _is_empty(value))


def _value(value: object) -> str:
    return number(value, 4) if isinstance(value, float) and value != round(value) else value_text(value)


def _is_empty(value: object) -> bool:
    return value is None or value != value


def _shown(rows: pd.DataFrame, keys: Sequence[str], figures: Sequence[str]) -> pd.DataFrame:
    """Groups as words, all else that differs in one column, and figures with their ends."""
    words: dict[str, list[str]] = {key: [one_line(value) for value in rows[key]] for key in keys if "." not in key}
    others = [key for key in keys if key not in words]
    if others:
        words["settings"] = [settings_of(row, others) for row in rows.to_dict("records")]
    columns = [name for figure in figures for name in (figure, *ends(figure)) if name in rows]
    return pd.concat([pd.DataFrame(words, index=rows.index), rows[columns]], axis=1)


def compared(judged: pd.DataFrame, against: pd.DataFrame) -> list[str]:
    """Sentences on the best beside each default."""
    best = judged[judged["role"] == "best"]
    if best.empty:
        return ["No best was chosen, and none is compared with the defaults."]
    said = []
    if best["error"].iloc[0] or best["limited_by"].iloc[0]:
        why = best["error"].iloc[0] or f"{best['limited_by'].iloc[0]} {best['verdict'].iloc[0]}"
        said.append(f"On these requests the best does not hold beyond doubt: {one_line(why)}.")
    for row in judged[judged["role"] == "default"].to_dict("records"):
        name = f"the default on {one_line(row['hardware'])}"
        if row["error"]:
            said.append(f"It is not compared with {name}, which could not serve: {one_line(row['error'])}.")
        elif row["verdict"] == VIOLATED:
            said.append(f"It is not compared with {name}, which does not hold: {row['limited_by']}.")
        else:
            own = against[against["default"] == row["hardware"]]
            said += [_ratio(each, name) for each in own.to_dict("records")]
    return said


def _ratio(row: Mapping[Hashable, Any], name: str) -> str:
    """How the best's figure compares with a default's."""
    low, high = (ratio_text(row[end]) for end in ends("ratio"))
    times = (
        f"Its {row['metric']} is {ratio_text(row['ratio'])} times ({low} to {high}) that of {name}: {row['verdict']}"
    )
    return f"{times}." if row["verdict"] == BETTER else f"{times}; it did not beat it."


@dataclass(frozen=True, kw_only=True)
class TunedChart(Chart):
    """The front of two goals, or one goal over the trials.

    Args:
        rows: as in `api.tuning.Tuned`.
        goals: what was wanted; the first two are drawn.
        keys: what was searched.
    """

    name: str = "tuned"
    heading: str = "Deployments"
    rows: pd.DataFrame
    goals: Goals
    keys: Sequence[str]

    def figure(self) -> Figure:
        """Draw it."""
        y, *others = [column for column, _ in self.goals]
        x = others[0] if others else "deployment"
        served = self.rows[self.rows["error"] == ""]
        group = next(key for key in (*GROUPED, *self.keys) if key in self.keys)
        group = next((key for key in GROUPED if key in self.keys and served[key].nunique() > 1), group)
        names = list(dict.fromkeys(served[group].astype(str)))
        title = "Deployments that were tried, and the front" if others else "Deployments, as they were tried"
        sheet = Sheet(title, self.subject, names, coloured=self._first(served, group))
        sheet.rest = "others"
        (axes,) = sheet.panels(1, 1, 4.8)
        (x_values, x_text), (y_values, y_text) = (_scaled(self.rows, column) for column in (x, y))
        label(axes, x_text, y_text, NOT_CHOSEN)
        for name in names:
            look = sheet.looks[name]
            own = ((self.rows["error"] == "") & (self.rows[group].astype(str) == name)).to_numpy()
            holds = (self.rows["verdict"] == SATISFIED).to_numpy()
            for mask, face in ((own & ~holds, "none"), (own & holds, look.colour)):
                how: Settings = {"marker": look.marker, "color": look.colour, "markerfacecolor": face, "markersize": 5}
                axes.plot(x_values[mask], y_values[mask], linestyle="", alpha=0.8, **how)
            sheet.entry(Line2D([], [], linestyle="", marker=look.marker, color=look.colour), name)
        front = self.rows["deployment"].isin(standing(self.rows, self.goals)["deployment"]).to_numpy()
        axes.plot(x_values[front], y_values[front], linestyle="", **RING)
        number_axis(axes, "x", x_values, log=None if others else False, whole=not others)
        number_axis(axes, "y", y_values)
        return sheet.finish()

    def _first(self, served: pd.DataFrame, group: str) -> list[str]:
        """Who is coloured where there are many: the front's, then who holds, by the first goal."""
        y, more = self.goals[0]
        holds, cost = served["verdict"] == SATISFIED, served[y] * (-1 if more else 1)
        order = served.assign(_holds=~holds, _front=~served["on_front"], _cost=cost)
        ordered = order.sort_values(["_front", "_holds", "_cost"], kind="stable")[group].astype(str)
        return list(dict.fromkeys(ordered))[:MOST_COLOURED]

    def sentences(self) -> list[str]:
        """The front, a deployment each."""
        varied = varied_keys(self.rows, self.keys)
        said = []
        for row in standing(self.rows, self.goals).to_dict("records"):
            groups = [one_line(row[key]) for key in varied if "." not in key]
            what = ", ".join([*groups, settings_of(row, [key for key in varied if "." in key])])
            figures = ", ".join(f"{column} {number(row[column])}" for column, _ in self.goals)
            said.append(f"{markdown_escape(what)}: {markdown_escape(figures)}.")
        return said


def _scaled(rows: pd.DataFrame, column: str) -> tuple[np.ndarray, str]:
    """A column's values as they are shown, and the text of their axis."""
    values = rows[column].to_numpy(dtype=float)
    if column not in SUMMARY:
        return values, "Deployment, in the order in which it came"
    unit = shown_unit(SUMMARY[column], values)
    return values / unit.divisor, SUMMARY[column].axis(unit.name)
