"""Where a row's times come from: which rows may be compared, and how far a modelled one can be trusted."""

import math
from typing import NamedTuple

import pandas as pd

from kvbench.model.hardware import Hardware
from kvbench.results.columns import FROM, PERCENT, ends
from kvbench.results.intervals import RESIDUALS, SHEETS

MODELLED, FLEET = "modelled", "fleet"
KIND = ("source", "scope", "simulated_by")
"""The columns in which two rows must agree for their times to be compared."""

TIME = "step_mean_us"
"""What modelled and measured rows are compared by."""

_TRUST = ("step_error", "step_noise")
_SCOPES = {"cache": "of the cache alone", "model": "of a whole model"}
_PROGRAMS = {FLEET: "event by event"}
_WHOLE_PERCENT = 10
_KNOWN_BY = {
    RESIDUALS: f"{PERCENT} % intervals, from kernels that were measured there",
    SHEETS: f"unvalidated; {PERCENT} % intervals, the widest that data sheets of measured machines were off by",
}
"""Of replayed rows, by what their intervals come from."""
NOT_REPLAYED = "without intervals, since nothing was replayed with other times (backend.replays)"


class RowKind(NamedTuple):
    """Rows whose times may be compared.

    Args:
        words: what they are, such as "modelled, of a whole model"; "" where a summary has one kind only.
        ending: of the names of their charts; "" likewise.
        rows: themselves.
    """

    words: str
    ending: str
    rows: pd.DataFrame


def origin(hardware: Hardware | None, scope: str, strategy: str | None = None) -> dict[str, object]:
    """The columns of a row that say which machine was modelled, and how far its times are from measured ones.

    Args:
        hardware: the machine; None where nothing is modelled.
        scope: of the row, cache or model. A validation is of the cache alone unless it says otherwise, and then says
            nothing of a whole model.
        strategy: its name. Where a validation has errors by strategy, one that it lacks is unvalidated. None for all.
    """
    if hardware is None:
        return {}
    found: dict[str, object] = {"hardware": hardware.name, "step_error": math.nan, "step_noise": math.nan}
    validation = hardware.validation
    if validation is not None and validation.get("scope", "cache") == scope:
        errors = validation.get("errors")
        of_strategy = None if strategy is None else errors
        found["step_error"] = validation["error"] if of_strategy is None else of_strategy.get(strategy, math.nan)
        found["step_noise"] = validation["noise"]
    return found


def whole_steps(steps: pd.DataFrame, scope: str) -> pd.DataFrame:
    """The steps that append. Of a whole model, those of one iteration are one: its requests share weights and launches.

    Args:
        steps: a row a request's step.
        scope: of the rows, cache or model.
    """
    done = steps[steps["num_tokens"] > 0]
    if scope != "model":
        return done
    done = steps[(steps["num_tokens"] > 0) | (steps["phase"] == "load")]  # what its tokens wait for is an iteration's
    by_iteration = done.assign(decodes=done["phase"] == "decode").groupby(
        ["strategy", "repetition", "iteration"], observed=True, sort=False, as_index=False
    )
    whole = by_iteration.agg(
        warmup=("warmup", "first"),
        session=("session", "first"),
        turn=("turn", "first"),
        decodes=("decodes", "all"),
        num_tokens=("num_tokens", "sum"),
        num_resizes=("num_resizes", "sum"),
        step_us=("step_us", "sum"),
    )
    return whole.assign(phase=whole.pop("decodes").map({True: "decode", False: "prefill"}))


def kinds(summary: pd.DataFrame) -> list[RowKind]:
    """A summary's rows by kind, in order; of one kind, all of them."""
    texts = _kind_texts(summary)
    if texts.nunique() <= 1:
        return [RowKind("", "", summary)]
    found = []
    for text in dict.fromkeys(texts):
        source, scope, program = text.split("\n")
        words = ", ".join(filter(None, [source, _SCOPES.get(scope, scope), _PROGRAMS.get(program, "")]))
        ending = "_".join(["", *filter(None, [source, scope, program if program in _PROGRAMS else ""])])
        found.append(RowKind(words, ending, summary[texts == text].reset_index(drop=True)))
    return found


def require_one_kind(summary: pd.DataFrame, what: str) -> None:
    """Refuse to compare rows that may not be.

    Args:
        summary: rows of a summary.
        what: is compared.
    Raises:
        ValueError: they differ in source, scope or simulated_by.
    """
    found = kinds(summary)
    if len(found) > 1:
        got = "; ".join(kind.words for kind in found)
        raise ValueError(f"{what} compares rows of one source, scope and simulated_by; got {got}")


def is_modelled(summary: pd.DataFrame) -> pd.Series:
    """Whether each row's times are modelled."""
    return _column(summary, "source") == MODELLED


def is_fleet(summary: pd.DataFrame) -> bool:
    """Whether all rows are of a simulated fleet: of requests served, not of steps."""
    return len(summary) > 0 and bool((_column(summary, "simulated_by") == FLEET).all())


def any_fleet(summary: pd.DataFrame) -> bool:
    """Whether some rows are."""
    return bool((_column(summary, "simulated_by") == FLEET).any())


def model_notes(summary: pd.DataFrame) -> list[str]:
    """A sentence a modelled machine: how far its times a step are from measured ones, or that nobody knows.

    Args:
        summary: rows with source, hardware, step_error and step_noise, as far as known.
    Returns:
        Such as "Modelled on H100: error of a step's time 9 % (noise 4 %)." or "Modelled on H100: unvalidated."; one for
        all machines of which the same is known, and none for measured rows.
    """
    machines: dict[str, list[str]] = {}
    rows = summary[is_modelled(summary)]
    names = _column(rows, "hardware").replace("", "an unnamed machine")
    for name, own in rows.groupby(names, sort=False):
        machines.setdefault(_trust(own), []).append(str(name))
    return [f"Modelled on {', '.join(who)}: {trust}." for trust, who in machines.items()]


def model_errors(summary: pd.DataFrame, parameters: list[str]) -> pd.DataFrame:
    """Modelled times a step beside measured ones of the same strategy, scenario, scope and swept parameters.

    Args:
        summary: a row a strategy and job.
        parameters: swept columns; those that tell measured jobs from modelled ones are no part of a match.
    Returns:
        strategy, scenario, scope, the parameters matched, measured_us and the ends of its interval, modelled_us and
        error, signed, a share of the measured; empty where nothing matches.
    """
    rows = summary[(_column(summary, "outcome") == "completed") & (_column(summary, "simulated_by") != FLEET)]
    modelled, measured = rows[is_modelled(rows)], rows[_column(rows, "source") == "measured"]
    values = {
        name: {str(value) for value in measured[name]} & {str(value) for value in modelled[name]} for name in parameters
    }
    keys = list(dict.fromkeys(["strategy", "scenario", "scope", *(name for name in parameters if values[name])]))
    told = dict(zip((TIME, *ends(TIME)), ("measured_us", *ends("measured_us")), strict=True))
    left = measured[[*keys, *told]].rename(columns=told)
    right = modelled[[*keys, TIME]].rename(columns={TIME: "modelled_us"})
    found = left.merge(right, on=keys).dropna(subset=["measured_us", "modelled_us"])
    return found.assign(error=found["modelled_us"] / found["measured_us"] - 1)


def _trust(rows: pd.DataFrame) -> str:
    """What is known of a machine's times: the error of its strategies, and the noise beside it."""
    errors, noises = (pd.to_numeric(rows.get(name, pd.Series(index=rows.index)), errors="coerce") for name in _TRUST)
    if errors.isna().all():
        unknown = NOT_REPLAYED if any_fleet(rows) else "unvalidated"
        return _KNOWN_BY.get(next(iter(_column(rows, FROM)), ""), unknown)
    noise = f" (noise {_range(noises)})" if noises.notna().any() else ""
    lacking = _column(rows, "strategy")[errors.isna()].unique()
    rest = f"; unvalidated for {', '.join(lacking)}" if len(lacking) else ""
    return f"error of a step's time {_range(errors)}{noise}{rest}"


def _range(shares: pd.Series) -> str:
    """Shares in per cent: the one that all are, or the least and the most."""
    texts = [_percent(share) for share in (shares.min(), shares.max())]
    return f"{' to '.join(dict.fromkeys(texts))} %"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if 100 * share >= _WHOLE_PERCENT else f"{100 * share:.2g}"


def _column(summary: pd.DataFrame, name: str) -> pd.Series:
    """A column as text; what is missing is empty."""
    values = summary[name] if name in summary else pd.Series("", index=summary.index)
    return values.astype(object).where(values.notna(), "").astype(str)


def _kind_texts(summary: pd.DataFrame) -> pd.Series:
    parts = [_column(summary, name) for name in KIND]
    text = parts[0]
    for part in parts[1:]:
        text = text + "\n" + part
    return text
