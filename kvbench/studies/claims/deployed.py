"""C9 as a deployment: what is recommended for a kind of conversation, and what the article's choice costs beside it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from kvbench.charts.text import number
from kvbench.decide.advice import WORTH
from kvbench.decide.constraints import SATISFIED, VIOLATED
from kvbench.decide.objectives import USUAL
from kvbench.decide.ratios import Ratio, ratio_of
from kvbench.results.conditions import UNTOLD
from kvbench.strategy.base import Strategy
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.predictive import Predictive
from kvbench.studies.base import Advised, Setting
from kvbench.studies.claims.finding import ANY, FAILS, UNDECIDED, Finding, combined
from kvbench.workload.arrivals import ClosedLoop
from kvbench.workload.conversation import Conversations
from kvbench.workload.lengths import Lognormal

CONDITIONS = ("ttft_p99_s<=10", "tpot_p99_s<=0.25", "quality.kl<=0.02")
SERVED: Mapping[str, object] = {
    "model": "llama3_8b",
    "hardware": "l40s",
    "parallel": {"tensor": 1},
    "settings": {"quality.proxy": "smollm2", "backend.replays": 8},
}
CHOICES: Mapping[str, Strategy] = {"predictive": Predictive(), "dynamic, factor 2": Dynamic(growth_factor=2.0)}
OTHERS = ("paged", "static", "dynamic", "chunked", "hierarchical", "compressed", "int8", "int4", "sinks", "streaming")
"""The project's, with their parameters as they come."""
OWN = ("static", "dynamic", "hierarchical", "compressed", "streaming")
"""Of these, what the article has."""
ABOUT = (
    "C9, deployed: what is recommended for Llama 3.1 8B on one L40S by vLLM's rules, of the article's choice, "
    f"{', '.join(OTHERS)}: the least cost of a million tokens where {', '.join(CONDITIONS)}. Clients wait for their "
    "answers; times are modelled, and SmolLM2 stands for the model's loss of quality."
)
BROKEN = "conditions that it breaks where it is deployed"
COSTS = "cost of a million tokens where it is deployed, over the least"
OF_OWN = "cost of a million tokens where it is deployed, over the least of the article's own"


@dataclass(frozen=True)
class ServedKind:
    """A kind of conversation, sent by clients that wait for their answers.

    Args:
        name: what it stands for.
        choice: the article's strategy for it.
        num_requests: in all; a percentile needs a thousand that decode.
        num_clients: as many as an L40S serves, about.
        num_prompt_tokens: the median.
        num_output_tokens: the median.
    """

    name: str
    choice: str
    num_requests: int
    num_clients: int
    num_prompt_tokens: int
    num_output_tokens: int

    @property
    def scenario(self) -> Conversations:
        """The requests."""
        prompts, outputs = (
            Lognormal(median=median, sigma=0.5, low=median // 4, high=3 * median)
            for median in (self.num_prompt_tokens, self.num_output_tokens)
        )
        arrivals = ClosedLoop(concurrency=self.num_clients)
        return Conversations(num_requests=self.num_requests, arrivals=arrivals, prompts=prompts, outputs=outputs)


KINDS = (
    ServedKind("short chat", "predictive", 4_000, 128, 160, 60),
    ServedKind("long document", "hierarchical", 2_500, 16, 8_000, 150),
    ServedKind("code", "dynamic, factor 2", 3_000, 48, 1_500, 40),
    ServedKind("creative writing", "compressed", 3_000, 256, 120, 600),
)


def deployed(setting: Setting) -> tuple[list[Finding], list[str]]:
    """What is found of each kind, and a sentence on each; nothing where nobody recommends.

    Args:
        setting: with the call that does.
    """
    findings, sentences = [], []
    for kind in KINDS if setting.recommend is not None else ():
        own, said = _kind(kind, setting)
        findings += own
        sentences.append(f"C9, {kind.name}, deployed: {said}")
    return findings, [ABOUT, *sentences] if sentences else []


def _kind(kind: ServedKind, setting: Setting) -> tuple[list[Finding], str]:
    assert setting.recommend is not None
    choice = CHOICES.get(kind.choice)
    try:
        why = "" if choice is None else refusal(choice)
        chosen = {kind.choice: choice} if choice is not None and not why else {}
        advised = setting.recommend(
            kind.scenario, {name: name for name in OTHERS} | chosen, subject_to=CONDITIONS, **SERVED
        )
    except ImportError as error:
        return [_none(kind, why := str(error).splitlines()[0])], f"{UNTOLD}: {why}"
    if why:
        return [_none(kind, why)], f"{UNTOLD}: {why}. Of the others: {advised.words}"
    return judged_choice(kind, advised)


def refusal(strategy: Strategy) -> str:
    """Why no fleet serves a strategy; "" where one does.

    Raises:
        ImportError: what compiles fleets is not installed.
    """
    from kvbench.fleet.rules import check_rule

    try:
        check_rule(strategy)
    except ValueError as error:
        return f"no fleet serves it: {str(error).partition(';')[0]}"
    return ""


def _none(kind: ServedKind, why: str) -> Finding:
    condition = f"{kind.name}: {kind.choice}"
    return Finding(condition=condition, definition=COSTS, measured=math.nan, unit="×", claimed=(0, 1), note=why)


def judged_choice(kind: ServedKind, advised: Advised) -> tuple[list[Finding], str]:
    """What an answer says of the article's choice.

    Args:
        kind: of conversation.
        advised: the answer, the choice among its rows.
    """
    own = advised.rows[advised.rows["strategy"] == kind.choice]
    row = own.iloc[0]
    if row["error"] or advised.best is None:
        why = str(row["error"]) or "nothing that was tried is known to hold"
        return [_none(kind, why)], f"{UNTOLD}: {why}. {advised.words}"
    is_broken, limits = row["verdict"] == VIOLATED, str(row["limited_by"])
    broken = Finding(
        condition=f"{kind.name}: {kind.choice}", definition=BROKEN, unit="", claimed=(0, 0), note=limits,
        measured=len(limits.split(", ")) if limits else 0, is_decided=row["verdict"] != UNTOLD,
    )  # fmt: skip
    findings, said = [broken], [f"it {'breaks' if is_broken else 'may break'} {limits}"] if limits else []
    for definition, rival in _rivals(kind, advised):
        ratio = ratio_of(USUAL, rival, own, is_paired=True)
        note = _beside(ratio, str(rival["strategy"].iloc[0]), kind.choice)
        findings.append(
            replace(
                broken, definition=definition, measured=ratio.value, unit="×", note=note,
                claimed=ANY if is_broken else (0, 1 + WORTH), is_decided=not ratio.low <= 1 + WORTH < ratio.high,
            )
        )  # fmt: skip
        said.append(f"of the article's own, {note}" if definition == OF_OWN else note)
    verdicts = [each.verdict for each in findings if each.definition != OF_OWN]
    verdict = next((each for each in (FAILS, UNDECIDED) if each in verdicts), combined(verdicts))
    return findings, f"{UNTOLD if verdict == UNDECIDED else verdict}: {'; '.join(said)}. {advised.words}"


def _rivals(kind: ServedKind, advised: Advised) -> Iterator[tuple[str, pd.DataFrame]]:
    """The best of all, and the least of the article's own that holds, each as one row."""
    rows = advised.rows
    yield COSTS, rows[rows["deployment"] == advised.best]
    held = rows[(rows["verdict"] == SATISFIED) & rows["strategy"].isin([*OWN, kind.choice])]
    if len(held):
        yield OF_OWN, held.loc[[held[USUAL].idxmin()]]


def _beside(ratio: Ratio, rival: str, choice: str) -> str:
    """What the choice costs beside another."""
    if rival == choice:
        return f"{choice} costs the least"
    around = "" if pd.isna(ratio.low) or ratio.low == ratio.high else f" ({number(ratio.low)} to {number(ratio.high)})"
    return f"{choice} costs {number(ratio.value, 4)} times{around} what {rival} does"
