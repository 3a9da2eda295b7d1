"""C9: whether the article's choice for each kind of conversation is the best, by what "best" may mean."""

from dataclasses import dataclass

import pandas as pd

from kvbench.results.intervals import half_width
from kvbench.results.summary import US_PER_S
from kvbench.strategy.base import Strategy
from kvbench.studies.claims.article import compressed, dynamic, hierarchical, predictive, static
from kvbench.studies.claims.bench import ClaimsBench, tokens_of
from kvbench.studies.claims.deployed import deployed
from kvbench.studies.claims.finding import Evidence, Finding
from kvbench.workload.request import Request, Session


@dataclass(frozen=True)
class ConversationKind:
    """A kind of conversation.

    Args:
        name: what it stands for.
        choice: the article's strategy for it.
        session: what is appended and decoded.
        is_timed: whether it is short enough to be measured.
    """

    name: str
    choice: str
    session: Session
    is_timed: bool


# Code has long prompts and short answers, creative writing the reverse; what is measured stays short.
KINDS = (
    ConversationKind(
        "short chat", "predictive", Session(0, tuple(Request(n) for n in (50, 100, 150, 200, 250, 300))), True
    ),
    ConversationKind(
        "long document", "hierarchical", Session(0, tuple(Request(n) for n in (300, 400, 500, 600, 700, 500))), True
    ),
    ConversationKind(
        "long document of 13,500", "hierarchical", Session(0, tuple(Request(n) for n in range(1000, 4000, 500))), False
    ),
    ConversationKind(
        "code", "dynamic, factor 2", Session(0, tuple(Request(n, 40) for n in (300, 600, 450, 350))), True
    ),
    ConversationKind(
        "creative writing", "compressed", Session(0, tuple(Request(n, 120) for n in (60, 80, 70, 90, 50))), True
    ),
)
MEASURES = {
    "least peak on the device": ("peak_bytes", False),
    "least peak on device and host": ("peak_everywhere_bytes", False),
    "least allocated, mean over tokens": ("mean_allocated_bytes", False),
    "fewest resizes": ("num_resizes", False),
    "least allocated in total (the article's figure)": ("cumulative_bytes", False),
    "highest efficiency (the article's score)": ("efficiency", True),
    "least stall, admission included": ("stall_s", False),
    "least time in all": ("total_s", False),
}
"""Definitions of best: the column, and whether more is better. Those in seconds are measured."""
FRONT = "no other has less peak on the device and takes less time"


def candidates() -> dict[str, Strategy]:
    """The article's strategies with the parameters of its chatbot, and its static and dynamic defaults."""
    return {
        "static": static(),
        "dynamic": dynamic(),
        "dynamic, factor 2": dynamic(512, 2.0),
        "predictive": predictive("total", 256, 5),
        "predictive, article's rule": predictive("append", 256, 5),
        "hierarchical": hierarchical(1024, 4096),
        "compressed": compressed(0.8),
    }


def choices(bench: ClaimsBench) -> Evidence:
    """C9: a rank a kind and definition, and what is recommended."""
    findings, curves = [], []
    for kind in KINDS:
        rows, costs = _costs(bench, kind)
        fits = rows["outcome"] == "completed"
        for definition, cost in costs.items():
            ranks = _ranks(cost, fits)
            findings.append(_finding(kind, definition, ranks, fits))
            curves.append(
                _figures(definition, cost)
                .assign(kind=kind.name, choice=kind.choice, fits=fits, rank=ranks, strategy=rows.index)
                .reset_index(drop=True)
            )
        if kind.is_timed:
            findings.append(_front(kind, rows["peak_bytes"], costs["least time in all"], fits))
    curve = pd.concat(curves, ignore_index=True)
    served, said = deployed(bench.setting)
    return Evidence(findings=[*findings, *served], curve=curve, sentences=(*winners(curve), *said))


def winners(curve: pd.DataFrame) -> list[str]:
    """A sentence a kind: by which definitions the article's choice is first, and who is by the others.

    Args:
        curve: kind, choice, definition, strategy, rank, fits.
    """
    sentences = []
    for (kind, choice), own in curve.groupby(["kind", "choice"], sort=False):
        first, others = [], []
        for definition, rows in own[(own["rank"] == 1) & own["fits"]].groupby("definition", sort=False):
            names = list(rows["strategy"])
            first += [str(definition)] if choice in names else []
            others += [] if choice in names else [f"{definition} ({', '.join(names)})"]
        fits = own.loc[own["strategy"] == choice, "fits"].all()
        start = f"C9, {kind}: {choice} is first by {'; '.join(first) or 'nothing'}"
        parts = [start if fits else f"C9, {kind}: {choice} cannot hold it"]
        parts += [f"others are by {'; '.join(others)}"] if others else []
        sentences.append(". ".join(part[0].upper() + part[1:] for part in parts) + ".")
    return sentences


def _costs(bench: ClaimsBench, kind: ConversationKind) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """The counted summary; and by definition the costs, a row a strategy: one column, or one a repetition of a time."""
    rows = bench.count(candidates(), (kind.session,))
    rows["peak_everywhere_bytes"] = rows["peak_bytes"] + rows["peak_host_bytes"]
    timed = _times(bench, kind) if kind.is_timed else {}
    costs = {}
    for definition, (column, more) in MEASURES.items():
        if column in timed:
            costs[definition] = timed[column].reindex(rows.index)
        elif not column.endswith("_s"):
            costs[definition] = rows[[column]].astype(float) * (-1 if more else 1)
    return rows, costs


def _times(bench: ClaimsBench, kind: ConversationKind) -> dict[str, pd.DataFrame]:
    """Seconds of resizing and admitting, and in all: a row a strategy, a column a repetition."""
    _, steps = bench.time(f"C9 {kind.name}", candidates(), (kind.session,))
    stalled = (steps["num_resizes"] > 0) | (steps["phase"] == "admit")
    columns = {"stall_s": steps["reserve_us"].where(stalled, 0.0), "total_s": steps["step_us"]}
    by = [steps["strategy"].astype(str), steps["repetition"]]
    return {name: values.groupby(by).sum().unstack() / US_PER_S for name, values in columns.items()}


def beats(costs: pd.DataFrame, other: str, own: str) -> bool:
    """Whether one strategy costs less than another, beyond what repetitions differ by.

    Args:
        costs: a row a strategy; one exact column with a name, or one a repetition, by number.
        other: a strategy.
        own: another one.
    """
    saved = costs.loc[own].astype(float) - costs.loc[other].astype(float)
    if isinstance(costs.columns[0], str):
        return bool(saved.iloc[0] > 0)
    return bool(float(saved.mean()) > half_width(saved))


def _ranks(costs: pd.DataFrame, fits: pd.Series) -> pd.Series:
    """1 and how many others are better; who cannot hold it comes last of all."""
    held = list(fits.index[fits])
    ranks = {
        name: 1 + sum(beats(costs, other, name) for other in held) if fits[name] else len(fits) for name in fits.index
    }
    return pd.Series(ranks)


def _figures(definition: str, costs: pd.DataFrame) -> pd.DataFrame:
    """What is ranked: a row a strategy, half of its interval (NaN where it is exact), and its unit."""
    column, more = MEASURES[definition]
    unit = "s" if column.endswith("_s") else "bytes" if column.endswith("_bytes") else ""
    values = costs.mean(axis=1) * (-1 if more else 1)
    half = [half_width(each) for each in costs.to_numpy(dtype=float)]
    return pd.DataFrame({"definition": definition, "value": values, "half": half, "unit": unit})


def _finding(kind: ConversationKind, definition: str, ranks: pd.Series, fits: pd.Series) -> Finding:
    best = [name for name in ranks.index if ranks[name] == 1 and fits[name]]
    outcome = "" if fits[kind.choice] else f"; {kind.choice} cannot hold it"
    return Finding(
        condition=f"{kind.name}: {kind.choice}",
        definition=definition,
        measured=float(ranks[kind.choice]),
        unit="rank",
        claimed=(1, 1),
        note=f"first: {', '.join(best)}{outcome}",
    )


def _front(kind: ConversationKind, peaks: pd.Series, costs: pd.DataFrame, fits: pd.Series) -> Finding:
    less = peaks.index[(peaks < peaks[kind.choice]) & fits]
    better = [name for name in less if beats(costs, name, kind.choice)]
    return Finding(
        condition=f"{kind.name}: {kind.choice}",
        definition=FRONT,
        measured=float(len(better)),
        unit="others",
        claimed=(0, 0),
        note=f"better in both: {', '.join(better) or 'nobody'}",
    )


NUM_TOKENS = sum(tokens_of(candidates(), (kind.session,)) for kind in KINDS if kind.is_timed)
"""Tokens that one timed repetition appends."""
