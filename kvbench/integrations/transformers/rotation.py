"""Positions within the cache: keys turned further, so that what is kept lies side by side."""

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from kvbench.backend.storage import Piece, SequenceStore, Store
from kvbench.plan.area import Score

MODELS = ("llama", "mistral", "qwen2", "qwen3", "gemma")
"""Kinds of models whose keys are known to be turned by halves: channel i together with i + head_dim / 2."""

KINDS = ("default", "linear", "llama3")
"""Kinds of rotary embedding whose frequencies do not depend on the length."""


def frequencies(config: PreTrainedConfig, head_dim: int, device: torch.device) -> Tensor:
    """By what angle each pair of channels turns from one position to the next.

    Args:
        config: the text model's.
        head_dim: elements of a head.
        device: where they are needed.
    Returns:
        float32, [head_dim / 2].
    Raises:
        ValueError: the model's keys are turned in another way.
    """
    given = config.rope_parameters
    kind = given.get("rope_type") if isinstance(given, dict) else None
    if config.model_type not in MODELS or kind not in KINDS:
        raise ValueError(
            f"positions='compacted' turns keys as {', '.join(MODELS)} with rotary embeddings {', '.join(KINDS)} do; "
            f"got {config.model_type} with {kind or given}"
        )
    if _has_windows(config):
        raise ValueError(
            "positions='compacted' is for models without sliding windows: what a window hides stays hidden, however "
            "near it is moved"
        )
    if kind == "default":
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
        return torch.pow(float(given["rope_theta"]), -exponents)
    return ROPE_INIT_FUNCTIONS[kind](config, device)[0].float()


def _has_windows(config: PreTrainedConfig) -> bool:
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return any(kind != "full_attention" for kind in kinds)
    return getattr(config, "sliding_window", None) is not None


def turned(keys: Tensor, by: int | Tensor, angles: Tensor) -> Tensor:
    """Keys as they would be so many positions later.

    Args:
        keys: [num_rows, num_kv_heads, tokens, head_dim], turned by their positions.
        by: positions; one number, or [num_rows or 1, num_kv_heads or 1, tokens].
        angles: from `frequencies`.
    """
    turn = torch.as_tensor(by, dtype=torch.float32, device=keys.device)[..., None] * angles
    cos, sin = turn.cos(), turn.sin()
    first, second = keys.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(keys.dtype)


class Compacted:
    """A layer's store read as if what is attended had no gaps: a token's position is its place among those kept.

    Queries keep their positions; keys are turned so that each is as far from the newest token as there are kept tokens
    between.

    Args:
        sequence: the store; it is read in place.
        angles: from `frequencies`.
    Source: Xiao et al. 2023, arXiv:2309.17453, section 3.2.
    Departs: keys are held turned by their own positions and turned further when they are read.
    """

    def __init__(self, sequence: SequenceStore, angles: Tensor) -> None:
        self._sequence = sequence
        self._angles = angles
        self.score: Score | None = sequence.score
        self.num_seen = sequence.num_seen
        self.num_held = sequence.num_held
        self.ends_with_newest: Store | None = None

    def pieces(self, layer: int) -> Iterator[tuple[Store, Piece]]:
        """As `SequenceStore.pieces`, keys turned."""
        found = list(self._sequence.pieces(layer))
        for (store, piece), by in zip(found, self._shifts([piece for _, piece in found]), strict=True):
            is_there = isinstance(by, int) and not by
            yield store, piece if is_there else piece._replace(keys=turned(piece.keys, by, self._angles))

    def _shifts(self, pieces: list[Piece]) -> list[int | Tensor]:
        """How much later each token would have stood."""
        lengths = [piece.keys.shape[2] for piece in pieces]
        last = self.num_seen - sum(lengths)  # position of the first, had nothing been kept but the newest
        ranges = [piece.positions for piece in pieces if isinstance(piece.positions, range)]
        if len(ranges) == len(pieces):
            starts = [last + sum(lengths[:number]) for number in range(len(lengths))]
            return [start - positions.start for start, positions in zip(starts, ranges, strict=True)]
        positions = torch.cat([_tensor(piece) for piece in pieces], dim=2)
        places = positions.argsort(dim=2).argsort(dim=2) + last
        return list((places - positions).split(lengths, dim=2))


def _tensor(piece: Piece) -> Tensor:
    size = piece.keys.shape[:3]
    if isinstance(piece.positions, range):
        return torch.arange(piece.positions.start, piece.positions.stop, device=piece.keys.device).expand(size)
    return piece.positions.long()
