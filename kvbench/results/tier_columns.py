"""Columns of the summary that say what tiers below the device did."""

from kvbench.results.columns import Column

TIERS = {"host": "the host's memory", "disk": "the disk", "remote": "the remote store"}
"""Tiers below the device, for people."""

MOVED = ("loaded_bytes", "written_bytes", "prefetched_bytes")
"""What is counted of a tier's blocks."""


def tier_column(tier: str, figure: str) -> str:
    """The summary's column of a tier's figure, such as host_hit_share."""
    return f"{tier}_{figure}"


def tier_columns() -> dict[str, Column]:
    """Those of all tiers, in the summary."""
    columns: dict[str, Column] = {}
    for tier, place in TIERS.items():
        columns |= {
            tier_column(tier, "hit_share"): Column(
                "",
                f"prompt tokens loaded from {place} / prompt tokens looked for, of each request as it is first "
                "admitted; empty where no copies of blocks are kept there",
                f"Hit rate, {tier}",
            ),
            tier_column(tier, "loaded_bytes"): Column(
                "bytes", f"bytes of blocks loaded from {place} in a repetition, mean over repetitions"
            ),
            tier_column(tier, "written_bytes"): Column(
                "bytes", f"bytes of blocks put into {place} that it did not have, so too"
            ),
            tier_column(tier, "prefetched_bytes"): Column(
                "bytes",
                f"bytes of blocks fetched from {place} to the first tier while requests waited that were used, so too",
            ),
            tier_column(tier, "load_s"): Column(
                "s",
                f"time that the link of {place}, of all replicas together, took in a repetition for what was loaded; "
                "empty where none is modelled",
            ),
            tier_column(tier, "saved_s"): Column(
                "s",
                "time that computing those tokens would have taken, by what a token more takes in a large step, "
                "attention left out; loading does not pay where it is below the link's",
            ),
            tier_column(tier, "load_share"): Column(
                "", f"time that the link of {place} took for what was loaded / makespan_s; empty where none is modelled"
            ),
            tier_column(tier, "write_share"): Column(
                "",
                "time that what was written would take on it, the other way, which nothing waits for / makespan_s; "
                "above 1 the link could not keep up",
            ),
        }
    return columns
