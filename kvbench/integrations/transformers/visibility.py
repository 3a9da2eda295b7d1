"""What a step's queries may look at, told by the positions of the slots that are held."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kvbench.backend.reading import visible
from kvbench.backend.storage import Piece


@dataclass(frozen=True, slots=True)
class PositionMask:
    """A mask over positions, read at the positions of whatever slots there are.

    A slot's position is where its token stood among all that went in, padding included: a place in the model's own
    mask. So gaps, windows and padding are seen as the model means them.

    Args:
        mask: bool, [num_rows, 1 or num_heads, num_queries, positions]; True where a query may look. None: causal.
        first: position of the first query.
        places: where the tokens of the first append stood, int64 [num_rows, tokens], where they are held in another
            order; None where they are held as they came.
    """

    mask: Tensor | None
    first: int
    places: Tensor | None = None

    def __call__(self, piece: Piece, first: int, num_queries: int, group_size: int) -> Tensor | Literal[False] | None:
        """Which of a piece's tokens consecutive queries may look at; see `reading.visible`."""
        if self.mask is None:
            return visible(piece, first, num_queries, group_size)
        asked = self.mask.narrow(2, first - self.first, num_queries)
        return self._at(asked, piece.positions).repeat_interleave(group_size, dim=2)

    def _at(self, asked: Tensor, positions: range | Tensor) -> Tensor:
        """The mask's columns at a piece's positions."""
        if isinstance(positions, range):
            if self.places is None or positions.start >= self.places.shape[1]:
                return asked[..., positions.start : positions.stop]
            positions = torch.arange(positions.start, positions.stop, device=asked.device)
            positions = positions.expand(asked.shape[0], 1, -1)
        positions = positions.long()
        if self.places is not None:
            positions = _placed(positions, self.places)
        num_rows, num_heads, num_slots = positions.shape
        asked = asked.expand(num_rows, max(num_heads, asked.shape[1]), -1, -1)
        index = positions.unsqueeze(2).expand(-1, asked.shape[1], asked.shape[2], num_slots)
        return asked.gather(3, index)


def _placed(positions: Tensor, places: Tensor) -> Tensor:
    """Where tokens stood, from where they are held."""
    num_moved = places.shape[1]
    found = places.unsqueeze(1).expand(-1, positions.shape[1], -1).gather(2, positions.clamp(max=num_moved - 1))
    return torch.where(positions < num_moved, found, positions)
