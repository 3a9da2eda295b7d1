"""`kvbench train trace=NAME out=FILE`: train the predictor of predictive_learned, and show it against the others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kvbench.cli.arguments import key_values
from kvbench.configuration.errors import UsageError
from kvbench.messages import unknown
from kvbench.workload.request import Session

KEYS = ("trace", "out", "quantile", "seed", "format")
USAGE = "python -m kvbench train trace=azure_conv out=FILE.safetensors quantile=0.9 seed=0"
QUANTILE = 0.9
SEED = 0


def main(arguments: list[str]) -> int:
    """Train on a scenario's requests or on a trace file, write the weights whole, and print the comparison.

    Raises:
        UsageError: an argument is wrong, or the trace is missing, malformed or too short.
    """
    given = key_values(arguments, KEYS, ("trace", "out"), USAGE, {})
    # Imported here, so that other verbs come at once.
    from kvbench.files import write_whole
    from kvbench.predictor.compare import compare
    from kvbench.predictor.replay import examples_of
    from kvbench.predictor.train import train

    out, quantile, seed = _out(given), _quantile(given), _seed(given)
    trace, source, sessions = _requests(given, seed)
    examples = examples_of(sessions)
    try:
        weights = train(examples, quantile, seed, trace, source)
    except ValueError as error:
        raise UsageError(f"trace={given['trace']}: {error}") from error
    rows = compare(weights, examples)
    rated = {name: rows[0][name] for name in ("num_requests", "pinball_tokens", "coverage")}
    content = replace(weights, about={**weights.about, "unseen": rated}).to_bytes()
    try:
        write_whole(out, lambda partial: partial.write_bytes(content))
    except OSError as error:
        raise UsageError(f"out={out}: it cannot be written: {error.strerror or error}") from error
    shares = weights.about["split"]
    print(
        f"{trace}: {len(examples):,} requests by arrival: {shares['train'][1]:,} train, "
        f"{shares['choose'][1] - shares['train'][1]:,} choose, {rated['num_requests']:,} are not seen\n"
        f"on those: tokens after the first prompt, at the {quantile:g} quantile\n\n{_table(rows)}\n\n"
        f"weights: {out} ({len(content):,} bytes); use them: strategy=predictive_learned "
        f"strategy.predictive_learned.weights={out}"
    )
    return 0


def _out(given: Mapping[str, str]) -> Path:
    from kvbench.predictor.weights import SUFFIX

    out = Path(given["out"]).expanduser()
    if out.suffix != SUFFIX:
        raise UsageError(f"out is a file whose name ends in {SUFFIX}, got {given['out']!r}")
    if out.exists():
        raise UsageError(f"out={out}: it exists already; name a new file")
    return out


def _quantile(given: Mapping[str, str]) -> float:
    text = given.get("quantile", str(QUANTILE))
    try:
        quantile = float(text)
    except ValueError:
        quantile = 0.0
    if not 0 < quantile < 1:
        raise UsageError(f"quantile is a number above 0 and below 1, got {text!r}")
    return quantile


def _seed(given: Mapping[str, str]) -> int:
    text = given.get("seed", str(SEED))
    if not (text.isascii() and text.isdecimal() and int(text) < 2**63):
        raise UsageError(f"seed is a whole number from 0 to 2^63 - 1, got {text!r}")
    return int(text)


def _requests(given: Mapping[str, str], seed: int) -> tuple[str, str, Sequence[Session]]:
    """The trace's name, where it is from, and its requests: all of them, whatever the scenario's max_requests."""
    import numpy as np

    from kvbench.workload.trace import Trace

    try:
        if "format" not in given:
            return _scenarios_requests(given["trace"], seed)
        path = Path(given["trace"])
        trace = Trace(path=str(path), file=path.name, format=given["format"], source=path.name)
        return path.name, path.name, trace.workload(np.random.default_rng(seed)).sessions
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error


def _scenarios_requests(name: str, seed: int) -> tuple[str, str, Sequence[Session]]:
    from kvbench.cli.command_line import check, read
    from kvbench.cli.keys import check_keys, composed
    from kvbench.configuration.catalogue import names
    from kvbench.configuration.parts import workload_of

    if name not in names("scenario") and not name.endswith((".yaml", ".yml")):
        hint = "a trace file needs format=azure, mooncake, plain or sharegpt beside it"
        raise UsageError(f"{unknown('scenario', name, names('scenario'))}\n  {hint}")
    with read([f"+scenario={name}", f"seed={seed}"]) as command:
        check(command)
        check_keys(command)
        config = composed(command)
    config["scenario"]["max_requests"] = None
    scenario, workload = workload_of(config)
    return command.choices("scenario")[0], getattr(scenario, "source", "generated"), workload.sessions


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = ("pinball", "coverage", "waste", "short")
    lines = [f"{'predictor':<20}{'parameter':<22}" + "".join(f"{column:>10}" for column in columns)]
    lines.append(f"{'':<42}{'tokens':>10}{'%':>10}{'tokens':>10}{'tokens':>10}")
    for row in rows:
        figures = (row["pinball_tokens"], 100 * row["coverage"], row["waste_tokens"], row["short_tokens"])
        lines.append(
            f"{row['predictor']:<20}{row['parameter']:<22}" + "".join(f"{figure:>10.1f}" for figure in figures)
        )
    return "\n".join(lines)
