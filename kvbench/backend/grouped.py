"""The measured backend for models whose layers are of several kinds, each held and attended as what it is."""

from typing import Literal, TypeVar

import torch
from torch import Tensor

from kvbench.backend.attention import attention, causal_mask, masked
from kvbench.backend.choice import Conditions
from kvbench.backend.inputs import GroupedInputs
from kvbench.backend.measured import MeasuredBackend
from kvbench.backend.reading import Chunk, See, by_piece, decode, in_place, prefill, visible
from kvbench.backend.signals import decode_with_mass, notes_mass, prefill_with_mass
from kvbench.backend.storage import Piece, SequenceStore
from kvbench.backend.storage.grouped import GroupedAreas, GroupedSequence, are_alike, check_groups
from kvbench.ledger.costs import as_held
from kvbench.model.groups import CHUNKED, LATENT, LayerGroup
from kvbench.plan.area import Area, Blocks, Cast

Position = TypeVar("Position", int, Tensor)


class GroupedBackend(MeasuredBackend):
    """Plans on real tensors, group by group of a model's layers.

    Layers with a window hold its tokens, chunked layers those of a chunk, latents one tensor, sharing layers nothing
    and attend to nothing; states are held, read and written each step, and not computed. Attention mass is that of
    layers that see all tokens.

    Args:
        conditions: the run's, without a recording.
        device: where; None for the conditions' own.
    Raises:
        ValueError: no such device here, a recording, or a group that is not held on tensors.
    """

    def __init__(self, conditions: Conditions, device: torch.device | None = None) -> None:
        check_groups(conditions.geometry.computed)
        if conditions.recording is not None:
            _ = conditions.geometry.plain  # which recordings are of, or it says so
        super().__init__(conditions, batch_decode=False, device=device)
        self.has_own_pools = not are_alike([group for group in self.geometry.groups if group.holds_tokens])
        self._causal: dict[int, Tensor] = {}  # by query heads a KV head

    _lands = True

    @property
    def signals(self) -> tuple[str, ...]:
        """As those of layers that are alike, but of latents none."""
        is_told = all(group.kind != LATENT for group in self.geometry.groups)
        return super().signals if is_told else ()

    def prepare(self, max_append_tokens: int, max_context_tokens: int) -> None:
        """See `MeasuredBackend.prepare`."""
        shared = self._grouped
        sizes = self.num_rows, max_append_tokens, self.device, self._seed
        self._inputs = GroupedInputs(shared.groups, shared.layers, *sizes)
        if self.attend:
            sizes_of = {group.heads_per_kv_head for group in shared.groups}
            self._causal = {size: causal_mask(max_context_tokens, size, self.device) for size in sizes_of}

    @property
    def _grouped(self) -> GroupedAreas:
        assert isinstance(self._areas, GroupedAreas)
        return self._areas

    @property
    def why_no_signals(self) -> str:
        """Steps do not attend, or layers hold latents."""
        if not self.attend:
            return super().why_no_signals
        return f" (of latents; {self.geometry.called} has {self.geometry.kinds})"

    @property
    def _num_heads(self) -> int:
        return max(group.num_heads for group in self._grouped.groups)

    def check_areas(self, areas: tuple[Area, ...]) -> None:
        """Refuse latents in eight bits, and blocks of windows with tables; what windows do not lie in, the ledger does.

        Raises:
            ValueError: there is such an area.
        """
        if any(area.is_beside and isinstance(area.layout, Blocks) for area in areas):
            raise ValueError(
                "blocks of layers with a window or states that are kept for later requests, or given back late, are "
                "counted and priced, and not carried out: use backend=modelled or counted, or prefix_caching=false "
                "with window_blocks=free"
            )
        held = as_held(areas, self.geometry)
        cast = [(area.name, area.format.dtype) for area in held if isinstance(area.format, Cast)]
        if cast and any(group.kind == LATENT for group in self.geometry.groups):
            raise ValueError(
                f"latents are held as they come, and area {cast[0][0]} holds them in {cast[0][1]}; "
                f"{self.geometry.called} has {self.geometry.kinds}"
            )

    def _shared(self, areas: tuple[Area, ...]) -> GroupedAreas:
        return GroupedAreas(as_held(areas, self.geometry), self.geometry.computed, self.num_rows, self.device)

    def open(self, seq: int) -> None:
        """Begin a sequence that holds nothing yet."""
        self._sequences[seq] = GroupedSequence(self._grouped)

    def describe(self) -> dict[str, object]:
        """See `MeasuredBackend.describe`; and what the layers are."""
        states = "; states are held, read and written each step, not computed" if self.geometry.state_bytes else ""
        return {**super().describe(), "layers": self.geometry.kinds + states}

    def attend_with(self, seq: int, chunks: list[list[Chunk]]) -> list[list[Tensor]]:
        """See `MeasuredBackend.attend_with`; layers are those that hold tokens."""
        sequence = self._sequences[seq]
        assert isinstance(sequence, GroupedSequence)
        shared, outputs = self._grouped, []
        bands: dict[tuple[int, int, int], Tensor] = {}
        for (at, number), own in zip(shared.places, chunks, strict=True):
            group = shared.groups[at]
            found = attended(sequence.parts[at], number, own, group, self._causal[group.heads_per_kv_head], bands)
            outputs.append(found)
        return outputs


def attended(
    sequence: SequenceStore,
    layer: int,
    chunks: list[Chunk],
    group: LayerGroup,
    mask: Tensor,
    bands: dict[tuple[int, int, int], Tensor],
) -> list[Tensor]:
    """Attend with a layer's newest queries over what its group holds.

    Args:
        sequence: of the group.
        layer: which of its.
        chunks: queries, in order, the last ending with the newest token.
        group: what the layer is.
        mask: from `attention.causal_mask`.
        bands: masks of windows, for the layers of a step to share.
    Returns:
        An output a chunk, of value_dim elements a head. Slots that are ranked by their mass are told of it.
    """
    size, window = group.heads_per_kv_head, sequence.window
    num_queries = sum(queries.shape[2] for _, queries in chunks) // size
    if notes_mass(sequence.score, num_queries):
        if num_queries > 1:
            return prefill_with_mass(sequence, layer, chunks, size, mask)
        return [decode_with_mass(sequence, layer, chunks[0][1])]
    if window is not None and window.is_late:
        found = _over_late(window.context(layer), chunks, group, mask, bands)
    elif group.tokens is not None and window is None:
        found = by_piece(sequence, layer, chunks, size, seen_in(group))
    elif num_queries == 1:
        found = [decode(sequence, layer, chunks[0][1])]
    elif window is not None:
        found = in_place(window.pieces(layer), chunks, sequence.num_seen, size, mask)
    else:
        found = prefill(sequence, layer, chunks, size, mask)
    return [output[..., : group.value_dim] for output in found] if group.kind == LATENT else found


def _over_late(
    context: Piece,
    chunks: list[Chunk],
    group: LayerGroup,
    mask: Tensor,
    bands: dict[tuple[int, int, int], Tensor],
) -> list[Tensor]:
    """Attend over tokens that are not all to stay; each query looks at those of its window or chunk."""
    assert group.tokens is not None
    size, positions = group.heads_per_kv_head, context.positions
    assert isinstance(positions, range)

    def seen(first: int, end: int) -> tuple[Tensor, Tensor]:
        start = first - positions.start
        return context.keys.narrow(2, start, end - first), context.values.narrow(2, start, end - first)

    outputs = []
    for first, queries in chunks:
        num_queries = queries.shape[2] // size
        end = first + num_queries
        if group.kind == CHUNKED:
            parts, start = [], first
            while start < end:
                base = _oldest(start, group)
                stop = min(end, base + group.tokens)
                own = queries.narrow(2, (start - first) * size, (stop - start) * size)
                parts.append(attention(own, [seen(max(base, positions.start), stop)], mask))
                start = stop
            outputs.append(torch.cat(parts, dim=2) if len(parts) > 1 else parts[0])
            continue
        start = max(positions.start, _oldest(first, group))
        key = (group.tokens, first - start, num_queries)
        if key not in bands:
            bands[key] = _band(range(start, end), first, num_queries, group, queries.device)
        outputs.append(masked(queries, *seen(start, end), bands[key]))
    return outputs


def _band(positions: range, first: int, num_queries: int, group: LayerGroup, device: torch.device) -> Tensor:
    """Which tokens of some positions consecutive queries see: bool [num_queries * query heads a KV head, tokens]."""
    at = torch.arange(first, first + num_queries, device=device).repeat_interleave(group.heads_per_kv_head)
    tokens, at = torch.arange(positions.start, positions.stop, device=device), at.unsqueeze(-1)
    return (tokens <= at) & (tokens >= _oldest(at, group))


def _oldest(at: Position, group: LayerGroup) -> Position:
    """The first position that queries at some positions look at: their chunk's, or that of a window's length."""
    assert group.tokens is not None
    return at // group.tokens * group.tokens if group.kind == CHUNKED else at - group.tokens + 1


def seen_in(group: LayerGroup) -> See:
    """What queries may look at of slots that hold more than their window or chunk: as `visible`, and no older."""

    def see(piece: Piece, first: int, num_queries: int, size: int) -> Tensor | Literal[False] | None:
        positions, found = piece.positions, visible(piece, first, num_queries, size)
        assert isinstance(positions, range)  # blocks keep no positions of their own
        if found is False or positions.stop <= _oldest(first, group):
            return False
        if found is None and positions.start >= _oldest(first + num_queries - 1, group):
            return None
        return _band(positions, first, num_queries, group, piece.keys.device)

    return see
