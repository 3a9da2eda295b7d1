"""What every storage of an area is, and what it is made from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from kvbench.model.groups import CHUNKED, LATENT, LayerGroup
from kvbench.plan.area import Area
from kvbench.plan.ops import Rule

Pair = tuple[Tensor, Tensor]
"""K and V: [num_rows, num_kv_heads, tokens, head_dim] each."""

Positions = range | Tensor
"""Positions of consecutive tokens, or int32 [num_rows, num_kv_heads, tokens]."""


class Piece(NamedTuple):
    """Tokens of one layer that lie together, and where in the sequence they stood."""

    keys: Tensor
    values: Tensor
    positions: Positions


class Part(NamedTuple):
    """Tokens of all layers on their way from one area to another.

    Args:
        num_tokens: how many.
        keys: a layer each, [num_rows, num_kv_heads, num_tokens, head_dim].
        values: as keys.
        positions: of all layers, or a layer each.
    """

    num_tokens: int
    keys: list[Tensor]
    values: list[Tensor]
    positions: range | list[Tensor]

    @property
    def first_position(self) -> int:
        """Of its first token; 0 where each token of a layer has a position of its own."""
        return self.positions.start if isinstance(self.positions, range) else 0


Fill = Callable[[Tensor, Tensor], Piece]
"""Brings a part of a staged area into buffers of K and V, [num_rows, num_kv_heads, part_tokens, head_dim]."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What tensors of a sequence have in common.

    Args:
        num_layers: layers that hold K and V.
        num_rows: rows of the batch.
        num_heads: KV heads.
        head_dim: elements of a head's K.
        dtype: of K and V; of a store's own tensors, what it casts them to.
        device: where attention runs.
        window: tokens that a layer holds at most, the last; None: all. Blocks of a pool hold all tokens in any case.
        is_chunked: whether those are of the chunk of so many that the newest is in.
        value_dim: elements of a head's V; None: as many as of its K.
        is_latent: whether a layer holds one tensor, of which V is the first elements.
    """

    num_layers: int
    num_rows: int
    num_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    window: int | None = None
    is_chunked: bool = False
    value_dim: int | None = None
    is_latent: bool = False

    @staticmethod
    def of_group(group: LayerGroup, num_rows: int, device: torch.device) -> "Shape":
        """That of a group's tensors."""
        return Shape(
            group.num_layers,
            num_rows,
            group.num_kv_heads,
            group.key_dim,
            getattr(torch, group.dtype),
            device,
            window=group.tokens,
            is_chunked=group.kind == CHUNKED,
            value_dim=None if group.key_dim == group.value_dim or group.kind == LATENT else group.value_dim,
            is_latent=group.kind == LATENT,
        )

    def values_of(self, num_tokens: int) -> tuple[int, int, int, int]:
        """Sizes of a tensor of V."""
        width = self.head_dim if self.value_dim is None else self.value_dim
        return self.num_rows, self.num_heads, num_tokens, width

    def of(self, num_tokens: int) -> tuple[int, int, int, int]:
        """Sizes of a tensor of K for so many tokens, or of latents."""
        return self.num_rows, self.num_heads, num_tokens, self.head_dim


class Store(Protocol):
    """K and V of one area of one sequence, all layers.

    Attributes:
        area: how it lives.
        num_used: slots that hold tokens.
    """

    area: Area
    num_used: int

    def reserve(self, capacity: int) -> None:
        """Make room for so many slots; 0 frees all.

        Raises:
            OutOfMemory: the tier gives no memory; only a release may follow.
        """
        ...

    def append(self, keys: list[Tensor], values: list[Tensor], num_tokens: int, position: int) -> None:
        """Write new tokens behind the live ones.

        Args:
            keys: a layer each, [num_rows, num_kv_heads, num_tokens, head_dim].
            values: as keys.
            num_tokens: new tokens; they fit.
            position: of the first of them in the sequence.
        """
        ...

    def receive(self, part: Part) -> None:
        """Write tokens that come from another area behind the live ones; they fit."""
        ...

    def read(self, layer: int) -> list[Pair]:
        """The live tokens of one layer, in any order; a staged area has none that can be read in place."""
        ...

    def pieces(self, layer: int) -> list[Piece]:
        """The live tokens of one layer with their positions, in the order of their slots; as `read`."""
        ...

    def fills(self, layer: int, part_tokens: int) -> list[Fill]:
        """What brings a staged area's tokens to where they are read, part by part; nothing where it is read in place.

        Args:
            layer: which.
            part_tokens: tokens of a part at most, a multiple of STAGING_TOKENS.
        """
        ...

    def leaving(self, rule: Rule) -> list[Part]:
        """The tokens that a rule does not keep; views where they lie together."""
        ...

    def keep(self, rule: Rule) -> None:
        """Evict what a rule does not keep."""
        ...

    def truncate(self, num_tokens: int) -> None:
        """Forget the newest tokens; storage stays as it is."""
        ...

    def select_rows(self, index: Tensor, shape: Shape) -> None:
        """Hold chosen rows of what there is, tensor by tensor.

        Args:
            index: rows, int64 [new num_rows].
            shape: of the tensors then.
        """
        ...

    def release(self) -> None:
        """Give back what others may use; storage of its own goes with the object."""
        ...


def narrowed(positions: range | list[Tensor], start: int, count: int) -> range | list[Tensor]:
    """A stretch of a part's positions."""
    if isinstance(positions, range):
        return positions[start : start + count]
    return [layer.narrow(2, start, count) for layer in positions]


def positions_of(piece: Piece, shape: Shape) -> Tensor:
    """A piece's positions, int64 [num_rows, num_kv_heads, tokens], on the device."""
    positions = piece.positions
    if isinstance(positions, range):
        positions = torch.arange(positions.start, positions.stop, device=shape.device)
        return positions.expand(shape.num_rows, shape.num_heads, -1)
    return positions.to(shape.device, torch.int64)
