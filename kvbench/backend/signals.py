"""Attention mass: what attention produces beside its output, for strategies that rank slots by it."""

from collections.abc import Iterable
from itertools import groupby

import torch
from torch import Tensor

from kvbench.backend.attention import ON_CPU, attention_and_lse, lse_of, merged
from kvbench.backend.reading import Chunk, Readable, See, by_piece, prefill, visible
from kvbench.backend.storage import Piece, Store
from kvbench.backend.storage.slots import SlotStore
from kvbench.plan.area import Accesses, Score, Votes

Masked = tuple[Store, Piece, Tensor | None]
MAX_WEIGHTS = 1 << 24
"""Attention weights that are held at once, where all of them are needed."""


def queries_at_once(num_weights: int, most: int) -> int:
    """How many tokens' queries a step attends with at once, where it must hold their weights.

    Args:
        num_weights: of one token: rows x query heads x tokens attended.
        most: the answer is between 1 and this.
    """
    return min(max(MAX_WEIGHTS // num_weights, 1), most)


def notes_mass(score: Score | None, num_queries: int) -> bool:
    """Whether a score has to be told of these queries' mass: of a single one, votes are not asked for."""
    return score is not None and not (isinstance(score, Votes) and num_queries == 1)


def decode_with_mass(sequence: Readable, layer: int, queries: Tensor) -> Tensor:
    """As `reading.decode`; the mass that each slot gets goes to its score."""
    store = sequence.ends_with_newest if queries.device.type == ON_CPU else None
    if store is not None and len(pieces := store.pieces(layer)) == 1:
        # A processor has the weights of one token at hand: a call beside them would take their products again.
        keys, values, _ = pieces[0]
        weights = ((queries @ keys.transpose(-1, -2)).float() * queries.shape[-1] ** -0.5).softmax(dim=-1)
        _account([(store, weights.sum(dim=2))], layer, 1)
        output: Tensor = weights.to(values.dtype) @ values
        return output
    output, masses = _attended(((store, piece, None) for store, piece in sequence.pieces(layer)), queries)
    _account(masses, layer, 1)
    return output


def prefill_with_mass(
    sequence: Readable, layer: int, chunks: list[Chunk], group_size: int, mask: Tensor
) -> list[Tensor]:
    """As `reading.prefill`; the mass that each slot gets goes to its score: of all queries, or of those that vote."""
    if isinstance(sequence.score, Accesses | Votes):
        outputs = prefill(sequence, layer, chunks, group_size, mask)
        _vote(sequence, layer, chunks, group_size, visible)
        return outputs
    return _with_all_mass(sequence, layer, chunks, group_size, visible)


def by_piece_with_mass(sequence: Readable, layer: int, chunks: list[Chunk], group_size: int, see: See) -> list[Tensor]:
    """As `reading.by_piece`, of one token too; the mass that each slot gets goes to its score as in the others."""
    num_queries = sum(queries.shape[2] for _, queries in chunks) // group_size
    if isinstance(sequence.score, Accesses | Votes) and num_queries > 1:  # of one token, votes are not asked for
        outputs = by_piece(sequence, layer, chunks, group_size, see)
        _vote(sequence, layer, chunks, group_size, see)
        return outputs
    return _with_all_mass(sequence, layer, chunks, group_size, see)


def _vote(sequence: Readable, layer: int, chunks: list[Chunk], group_size: int, see: See) -> None:
    """Where an append's last queries vote, let them."""
    score = sequence.score
    if not isinstance(score, Votes):
        return
    first, queries = chunks[-1]
    for earlier, before in reversed(chunks[:-1]):
        if queries.shape[2] < score.window * group_size:
            first, queries = earlier, torch.cat((before, queries), dim=2)
    num_voters = min(score.window, queries.shape[2] // group_size)
    first += queries.shape[2] // group_size - num_voters
    voters = queries.narrow(2, queries.shape[2] - num_voters * group_size, num_voters * group_size)
    _, masses = _attended(_masked(sequence, layer, first, voters, group_size, see), voters)
    _account(masses, layer, num_voters + 1)


def _with_all_mass(sequence: Readable, layer: int, chunks: list[Chunk], group_size: int, see: See) -> list[Tensor]:
    outputs = []
    for first, queries in chunks:
        output, masses = _attended(_masked(sequence, layer, first, queries, group_size, see), queries)
        outputs.append(output)
        _account(masses, layer, queries.shape[2] // group_size)
    return outputs


def _masked(sequence: Readable, layer: int, first: int, queries: Tensor, group_size: int, see: See) -> Iterable[Masked]:
    for store, piece in sequence.pieces(layer):
        found = see(piece, first, queries.shape[2] // group_size, group_size)
        if found is not False:
            yield store, piece, found


def _attended(pieces: Iterable[Masked], queries: Tensor) -> tuple[Tensor, list[tuple[Store, Tensor]]]:
    """Attend, and say what each piece got.

    Args:
        pieces: store, piece and mask; each is read before the next is asked for.
        queries: packed.
    Returns:
        The output, and for each piece its store and mass, float32 [num_rows, num_kv_heads, tokens].
    """
    parts, stores, found = [], [], []
    for store, piece, mask in pieces:
        logits = queries @ piece.keys.transpose(-1, -2)
        if mask is not None:
            logits.masked_fill_(~mask, -torch.inf)
        parts.append(attention_and_lse(queries, piece.keys, piece.values, mask))
        stores.append(store)
        found.append(logits)
    # In float32, whatever the logits are in. A query that may look nowhere, such as padding's, has no mass to give.
    less, scale = lse_of(parts).unsqueeze(-1).neg(), queries.shape[-1] ** -0.5
    together = found[0] if len(found) == 1 else torch.cat(found, dim=3)
    mass = less.add(together, alpha=scale).exp_().sum(dim=2)
    masses = mass.split([logits.shape[3] for logits in found], dim=2)
    return merged(parts), list(zip(stores, masses, strict=True))


def _account(masses: list[tuple[Store, Tensor]], layer: int, num_queries: int) -> None:
    """Give the area that keeps a score the mass of its slots, in their order."""
    for store, found in groupby(masses, key=lambda each: each[0]):
        own = [mass for _, mass in found]
        score = store.area.score
        threshold = None
        if isinstance(score, Accesses):
            together = torch.cat([mass for _, mass in masses], dim=2)
            threshold = together.topk(min(score.top, together.shape[2]), dim=2).values[:, :, -1:]
        if isinstance(store, SlotStore) and score is not None:
            mass = own[0] if len(own) == 1 else torch.cat(own, dim=2)
            accumulate(store, layer, mass, num_queries, threshold)


def accumulate(store: SlotStore, layer: int, mass: Tensor, num_queries: int, threshold: Tensor | None) -> None:
    """Add a step's attention mass to the scores of an area's slots.

    Args:
        store: whose slots.
        layer: of which layer.
        mass: float32 [num_rows, num_kv_heads, num_used], of the step's queries; for votes, of those that vote.
        num_queries: queries of the step.
        threshold: for accesses, [num_rows, num_kv_heads, 1]: the least mass of the step's top slots, over all areas.
    """
    scores = store.scores[layer].narrow(2, 0, store.num_used)
    match store.area.score:
        case Votes(window, kernel, pooling):
            # Votes are for the slots before the observation window; its own do not spill over to its neighbours.
            before = store.num_used - window
            if num_queries > 1 and before > 0:
                pool = torch.nn.functional.max_pool1d if pooling == "max" else torch.nn.functional.avg_pool1d
                pooled = pool(mass[:, :, :before], kernel, stride=1, padding=kernel // 2)
                # What no query may look at, such as padding, gets none of its neighbours' votes; nor does what
                # got less mass than float32 can tell from none.
                scores.narrow(2, 0, before).copy_(pooled.masked_fill_(mass[:, :, :before] == 0, 0))
        case Accesses(_, window):
            if num_queries == 1 and threshold is not None:
                scores.bitwise_left_shift_(1).bitwise_or_(mass >= threshold).bitwise_and_((1 << window) - 1)
        case _:
            scores.narrow(2, 0, mass.shape[2]).add_(mass)
