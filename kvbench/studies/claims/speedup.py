"""C8: how much faster a cache makes a token, by formula, by counting and by the clock."""

from dataclasses import replace

from kvbench.studies.claims.bench import ClaimsBench
from kvbench.studies.claims.finding import ANY, Evidence, Finding
from kvbench.studies.recompute import RecomputeExperiment, article_speedup

NUM_TOKENS = 4000
CLAIMED = 3902
NEAR = 0.1
"""What is within a tenth of the figure counts as the figure."""
EXPERIMENT = RecomputeExperiment(context_tokens=(500, 1000, 2000, NUM_TOKENS), num_decode_tokens=2)


def speedup(bench: ClaimsBench) -> Evidence:
    """C8: the formula holds for itself; counts and clock are the test."""
    claimed = (CLAIMED * (1 - NEAR), CLAIMED * (1 + NEAR))
    findings = [
        Finding(
            condition=f"{NUM_TOKENS} tokens",
            definition=definition,
            measured=value,
            unit="×",
            claimed=claimed,
            note=note,
        )
        for definition, value, note in _counts(NUM_TOKENS)
    ]
    measured = EXPERIMENT.run(replace(bench.setting, backend=bench.timed_backend))
    bench.keep("C8", measured)
    for row in measured.summary.to_dict("records"):
        is_claimed = row["context_tokens"] == NUM_TOKENS
        findings.append(
            Finding(
                condition=f"{row['context_tokens']:.0f} tokens",
                definition="measured: attention and cache, a token without a cache over one with it",
                measured=row["speedup"],
                unit="×",
                claimed=claimed if is_claimed else ANY,
                note=f"{row['recompute_us'] / 1000:,.3g} ms against {row['cached_us'] / 1000:,.3g} ms",
            )
        )
    return Evidence(findings=findings)


def _counts(n: int) -> list[tuple[str, float, str]]:
    """Speed-ups at n tokens that follow from counting query-key pairs."""
    last, whole = n * (n + 1) / 2, n * (n + 1) * (n + 2) / 6
    return [
        ("the article's formula, n² / (n + 100)", article_speedup(n), "evaluated, not measured"),
        ("query-key pairs of the last token, no causal mask: n² / n", float(n), "counted"),
        ("query-key pairs of the last token, causal: (n + 1) / 2", last / n, "counted"),
        ("query-key pairs of a whole generation, causal: (n + 2) / 3", whole / last, "counted"),
    ]
