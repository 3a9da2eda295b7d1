"""What a cache inside a model holds and has held: one form for kvbench's and for those of others."""

from typing import NamedTuple


class Figures(NamedTuple):
    """Bytes and counts of one cache, over all layers and rows.

    Args:
        held_bytes: bytes of all its storages now, on all tiers; of a pool of blocks, those that were handed out.
        peak_bytes: the most device bytes at any time, what a copy held twice in passing included. What attention is
            handed as a copy (of K and V that do not lie in one place, by transformers' own functions) is none of it.
        num_resizes: storages replaced by larger or smaller ones, a step's counted once.
        num_seen: tokens that went in.
        num_attended: of these, those that attention still reads.
    """

    held_bytes: int
    peak_bytes: int
    num_resizes: int
    num_seen: int
    num_attended: int
