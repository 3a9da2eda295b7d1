"""Prefix reuse: hit rates over a cache's size, and the tiers that the hits come from."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kvbench.charts.axes import from_zero, number_axis, tick_text, value_ticks
from kvbench.charts.sheet import Sheet, label
from kvbench.charts.style import INK, look, plain
from kvbench.charts.text import shown_unit
from kvbench.results.schema import Column

ROW_IN = (3.6, 2.6)
"""Height of a row of panels where there is one, or more."""
CEILING = (0, (5, 2))
TIERS = {"device": ("#3C4A57", ""), "host": ("#8FB7D9", ""), "disk": ("#E69F00", "///")}
BAR = 0.72
TICK = 7.0
EVERYTHING = "unlimited cache"
NOT_FULL = "Open: the cache was not full before the requests that count."
RATE = "Reused prompt tokens (%)"


def prefix_rates_chart(
    table: pd.DataFrame,
    unlimited: pd.DataFrame,
    lower_blocks: Mapping[str, int],
    subject: str,
    curve: pd.DataFrame,
) -> Figure:
    """Token hit rates over the device's size, a line a policy, a panel a kind of reuse; a row of panels a scenario.

    The line of lru with block_hash is the curve over all sizes; others go straight from size to size.

    Args:
        table: scenario, reuse, policy, device_blocks, device_bytes, token_hit_rate, filled_first.
        unlimited: a row a scenario: token_hit_rate of a cache that holds everything.
        lower_blocks: blocks of each tier behind the device, by name.
        subject: what was run on what.
        curve: of lru with block_hash: scenario, device_blocks, token_hit_rate.
    """
    kinds, policies = _distinct(table, "reuse"), _distinct(table, "policy")
    scenarios = _distinct(unlimited, "scenario")
    whose = f"{scenarios[0]}: what" if len(scenarios) == 1 else "What"
    notes = [] if table["filled_first"].all() else [NOT_FULL]
    sheet = Sheet(f"{whose} prompts reuse of the cache{_behind(lower_blocks)}", subject, notes=notes)
    panels = sheet.panels(len(scenarios), len(kinds), ROW_IN[len(scenarios) > 1] * len(scenarios), share_y=True)
    ceilings = dict(zip(unlimited["scenario"], unlimited["token_hit_rate"], strict=True))
    for place, axes in enumerate(panels):
        scenario, kind = scenarios[place // len(kinds)], kinds[place % len(kinds)]
        own = table[(table["scenario"] == scenario) & (table["reuse"] == kind)]
        for turn, policy in enumerate(policies):
            rows = own[own["policy"] == policy].sort_values("device_blocks")
            is_known = (kind, policy) == ("block_hash", "lru")
            _line(axes, rows, turn, curve[curve["scenario"] == scenario] if is_known else rows)
        axes.axhline(100 * ceilings[scenario], color=INK, linestyle=CEILING, linewidth=1.1)
        number_axis(axes, "x", own["device_blocks"], log=True)
        value_ticks(axes, "x", own["device_blocks"])
        axes.tick_params(axis="x", labelsize=TICK)
        panel = kind if len(scenarios) == 1 else f"{scenario}: {kind}"
        label(axes, f"Device ({_block_text(own)})", RATE if place % len(kinds) == 0 else "", plain(panel))
    number_axis(panels[0], "y", [], log=False)
    from_zero(panels[0], 100)
    sheet.legend = [(_mark(turn), plain(policy)) for turn, policy in enumerate(policies)]
    sheet.legend.append((Line2D([], [], color=INK, linestyle=CEILING, linewidth=1.1), EVERYTHING))
    return sheet.finish()


def prefix_tiers_chart(
    table: pd.DataFrame, unlimited: pd.DataFrame, scenario: str, lower_blocks: Mapping[str, int], subject: str = ""
) -> Figure:
    """Token hit rates of a scenario by tier, over the device's size; a row a policy, a column a kind of reuse.

    Args:
        table: as for `prefix_rates_chart`, with from_device, from_host and from_disk where there are such tiers.
        unlimited: a row a scenario: token_hit_rate of a cache that holds everything.
        scenario: which.
        lower_blocks: blocks of each tier behind the device, by name.
        subject: what was run on what.
    """
    kinds, policies = _distinct(table, "reuse"), _distinct(table, "policy")
    table, unlimited = (frame[frame["scenario"] == scenario] for frame in (table, unlimited))
    sheet = Sheet(f"{scenario}: the tiers of what is reused{_behind(lower_blocks)}", subject)
    panels = sheet.panels(len(policies), len(kinds), ROW_IN[len(policies) > 1] * len(policies), share_y=True)
    names = ["device", *lower_blocks]
    ceiling = float(unlimited["token_hit_rate"].iloc[0])
    for place, axes in enumerate(panels):
        policy, kind = policies[place // len(kinds)], kinds[place % len(kinds)]
        own = table[(table["policy"] == policy) & (table["reuse"] == kind)]
        is_last, is_first = place // len(kinds) == len(policies) - 1, place % len(kinds) == 0
        _bars(axes, own, names, is_last)
        axes.axhline(100 * ceiling, color=INK, linestyle=CEILING, linewidth=1.1)
        x_label = f"Device ({_block_text(own)})" if is_last else ""
        label(axes, x_label, RATE if is_first else "", plain(f"{policy}, {kind}"))
    number_axis(panels[0], "y", [], log=False)
    panels[0].set_ylim(0, 100)
    faces = {name: Patch(facecolor=TIERS[name][0], hatch=TIERS[name][1], edgecolor="white") for name in names}
    sheet.legend = [(face, name) for name, face in faces.items()]
    sheet.legend.append((Line2D([], [], color=INK, linestyle=CEILING, linewidth=1.1), EVERYTHING))
    return sheet.finish()


def _distinct(frame: pd.DataFrame, column: str) -> list[str]:
    return list(dict.fromkeys(frame[column].astype(str)))


def _block_text(rows: pd.DataFrame) -> str:
    """What the device's size counts: blocks of so many bytes."""
    block_bytes = rows["device_bytes"].iloc[0] / rows["device_blocks"].iloc[0]
    unit = shown_unit(Column("bytes", ""), [block_bytes])
    return f"blocks of {tick_text(round(block_bytes / unit.divisor, 2))} {unit.name}"


def _behind(lower_blocks: Mapping[str, int]) -> str:
    parts = [f"{count:,} blocks of {name}" for name, count in lower_blocks.items()]
    return f", {' and '.join(parts)} behind the device" if parts else ""


def _mark(turn: int) -> Line2D:
    kind = look(turn)
    return Line2D([], [], color=kind.colour, linestyle=kind.line, marker=kind.marker, markersize=6)


def _line(axes: Axes, rows: pd.DataFrame, turn: int, line: pd.DataFrame) -> None:
    """A policy's line, and markers of its rows; they are open where the cache was not full before what counts."""
    kind = look(turn)
    axes.plot(
        line["device_blocks"], 100 * line["token_hit_rate"], color=kind.colour, linestyle=kind.line, linewidth=1.4
    )
    x, y = rows["device_blocks"].to_numpy(), 100 * rows["token_hit_rate"].to_numpy()
    full = rows["filled_first"].to_numpy(dtype=bool)
    # Later ones are smaller, so that equal rates show all their markers.
    size = 9.0 - 2.0 * turn
    for mask, face in ((full, kind.colour), (~full, "white")):
        axes.plot(
            x[mask],
            y[mask],
            linestyle="",
            marker=kind.marker,
            markersize=size,
            color=kind.colour,
            markerfacecolor=face,
        )


def _bars(axes: Axes, rows: pd.DataFrame, names: list[str], with_sizes: bool) -> None:
    rows = rows.sort_values("device_blocks")
    places, bottom = np.arange(len(rows)), np.zeros(len(rows))
    for name in names:
        colour, hatch = TIERS[name]
        heights = 100 * rows[f"from_{name}"].to_numpy()
        axes.bar(places, heights, BAR, bottom=bottom, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5)
        bottom += heights
    axes.set_xticks(places, [tick_text(size) if with_sizes else "" for size in rows["device_blocks"]], fontsize=TICK)
    axes.grid(False, axis="x")
