"""Columns of the summary that say what a strategy costs a real model."""

from kvbench.results.columns import Column, ends

KL, WHERE = "quality_kl", "quality_from"
DEFINITION, CANNOT = "by definition", "cannot be told"

QUALITY_OF_MODEL: dict[str, Column] = {
    KL: Column(
        "nats",
        "KL divergence of the next token's distribution from the full cache's, KL(full || strategy), mean over the "
        "predictions of quality_from; 0 of lossless strategies; the interval is of these predictions, by eighths",
        "KL from the full cache",
    ),
    **{end: Column("nats", f"an end of the interval of {KL}") for end in ends(KL)},
    "quality_perplexity_ratio": Column(
        "", "perplexity of the same predictions / the full cache's", "Perplexity over the full cache's"
    ),
    "quality_needle_share": Column(
        "",
        "planted facts that greedy decoding finds, asked for at once and a turn later / those found with the full one",
        "Needles found of the full cache's",
    ),
    WHERE: Column(
        "",
        "what the quality_ columns come from: by definition (nothing is lost), or the model (a proxy, where it is not "
        "the one asked), text and sizes of a measurement; or why it cannot be told",
    ),
}
