"""`kvbench train trace=NAME out=FILE`: train the predictor of predictive_learned, and show it against the others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvbench.api.training import QUANTILE, SEED, train
from kvbench.cli.arguments import key_values, whole_number

KEYS = ("trace", "out", "quantile", "seed", "format")
USAGE = "python -m kvbench train trace=azure_conv out=FILE.safetensors quantile=0.9 seed=0"


def main(arguments: list[str]) -> int:
    """Train on a scenario's requests or on a trace file, write the weights whole, and print the comparison.

    Raises:
        UsageError: an argument is wrong, or the trace is missing, malformed or too short.
    """
    given = key_values(arguments, KEYS, ("trace", "out"), USAGE, {"quantile": str(QUANTILE), "seed": str(SEED)})
    quantile, seed, out = _quantile(given["quantile"]), whole_number(given["seed"]), Path(given["out"]).expanduser()
    trained = train(given["trace"], out=out, format=given.get("format"), quantile=quantile, seed=seed)
    about = trained.weights.about
    shares = about["split"]
    print(
        f"{about['trace']}: {shares['unseen'][1]:,} requests by arrival: {shares['train'][1]:,} train, "
        f"{shares['choose'][1] - shares['train'][1]:,} choose, {about['unseen']['num_requests']:,} are not seen\n"
        f"on those: tokens after the first prompt, at the {quantile:g} quantile\n\n{_table(trained.comparison)}\n\n"
        f"weights: {out} ({out.stat().st_size:,} bytes); use them: strategy=predictive_learned "
        f"strategy.predictive_learned.weights={out}"
    )
    return 0


def _quantile(text: str) -> Any:
    """A number; what is none is left for the call to refuse."""
    try:
        return float(text)
    except ValueError:
        return text


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
