"""K, V and queries of steps, made before anything is timed: random, or recorded."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvbench.backend.attention import QUERY_CHUNK, packed
from kvbench.backend.reading import Chunk
from kvbench.backend.storage import SequenceStore
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import LATENT, LayerGroup
from kvbench.plan.ops import Append

NUM_DECODE_TOKENS = 64
MAX_PIECE_TOKENS = 4096


class Inputs:
    """Random numbers to append and to ask with. Every layer gets the same; the values do not matter to the time.

    Args:
        group: the shape of a token, in a dtype that is computed in; of latents, values are the keys.
        num_rows: rows of a batch.
        max_append_tokens: tokens of the largest append.
        device: where the tensors live.
        seed: of the random values.
        most_tokens: of an append that comes in one piece.
    """

    def __init__(
        self,
        group: LayerGroup,
        num_rows: int,
        max_append_tokens: int,
        device: torch.device,
        seed: int,
        most_tokens: int = MAX_PIECE_TOKENS,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        dtype = getattr(torch, group.dtype)

        def random(num_heads: int, num_tokens: int, width: int = group.key_dim) -> Tensor:
            shape = (num_rows, num_heads, num_tokens, width)
            drawn = torch.randn(shape, generator=generator, dtype=torch.float32)  # the same on every device
            return torch.empty(shape, dtype=dtype, device=device).copy_(drawn)

        def pair(num_tokens: int) -> tuple[Tensor, Tensor]:
            keys = random(group.num_kv_heads, num_tokens)
            return keys, keys if group.kind == LATENT else random(group.num_kv_heads, num_tokens, group.value_dim)

        self._num_layers = group.num_layers
        self._piece_tokens = min(max(max_append_tokens, 1), most_tokens)
        self._keys, self._values = pair(self._piece_tokens)
        self._group_size = group.heads_per_kv_head
        self.queries = packed(random(group.num_heads, QUERY_CHUNK), group.num_kv_heads)
        pairs = [pair(1) for _ in range(NUM_DECODE_TOKENS)]
        self._tokens = [(self._layers(keys), self._layers(values)) for keys, values in pairs]
        self.decode_queries = [packed(random(group.num_heads, 1), group.num_kv_heads) for _ in range(NUM_DECODE_TOKENS)]
        self._next = 0

    def decode_query(self, num_seen: int) -> Tensor:
        """The query of a sequence's newest token."""
        return self.decode_queries[num_seen % NUM_DECODE_TOKENS]

    def chunks(self, first: int, num_queries: int, size: int) -> list[list[Chunk]]:
        """Queries of consecutive tokens, a layer each; see `RecordedInputs.chunks`."""
        end = first + num_queries
        if num_queries == 1:
            return [[(first, self.decode_query(end))]] * self._num_layers
        starts, group = range(first, end, size), self._group_size
        return [
            [(start, self.queries.narrow(2, 0, min(size, end - start) * group)) for start in starts]
        ] * self._num_layers

    def _layers(self, tensor: Tensor) -> list[Tensor]:
        return [tensor] * self._num_layers

    def pieces(self, op: Append) -> list[tuple[Append, list[Tensor], list[Tensor]]]:
        """An append with its keys and values; in pieces where it is very long, so that the inputs stay small."""
        if op.num_tokens == 1:
            self._next = (self._next + 1) % NUM_DECODE_TOKENS
            return [(op, *self._tokens[self._next])]
        full, rest = divmod(op.num_tokens, self._piece_tokens)
        sizes = [self._piece_tokens] * full + [rest] * (rest > 0)
        return [
            (
                Append(op.seq, size, op.area),
                self._layers(self._keys.narrow(2, 0, size)),
                self._layers(self._values.narrow(2, 0, size)),
            )
            for size in sizes
        ]


class GroupedInputs:
    """Random numbers for layers of several groups: those of `Inputs`, each in its place; an append is one piece.

    Args:
        groups: that hold tokens.
        layers: the numbers of each group's layers, over all of them.
        num_rows: rows of a batch.
        max_append_tokens: tokens of the largest append.
        device: where the tensors live.
        seed: of the random values.
    """

    def __init__(
        self,
        groups: Sequence[LayerGroup],
        layers: Sequence[Sequence[int]],
        num_rows: int,
        max_append_tokens: int,
        device: torch.device,
        seed: int,
    ) -> None:
        self._of = [Inputs(group, num_rows, max_append_tokens, device, seed, max_append_tokens) for group in groups]
        self._places = sorted((number, at) for at, own in enumerate(layers) for number in own)

    def chunks(self, first: int, num_queries: int, size: int) -> list[list[Chunk]]:
        """Queries of consecutive tokens, a layer each; see `RecordedInputs.chunks`."""
        found = [inputs.chunks(first, num_queries, size)[0] for inputs in self._of]
        return [found[at] for _, at in self._places]

    def pieces(self, op: Append) -> list[tuple[Append, list[Tensor], list[Tensor]]]:
        """An append with its keys and values; see `Inputs.pieces`."""
        return [
            (of_group[0][0], self._layers([keys for _, keys, _ in of_group]), self._layers([v for _, _, v in of_group]))
            for of_group in zip(*(inputs.pieces(op) for inputs in self._of), strict=True)
        ]

    def _layers(self, of_groups: list[list[Tensor]]) -> list[Tensor]:
        return [of_groups[at][0] for _, at in self._places]


@dataclass(frozen=True, slots=True)
class Recording:
    """K, V and queries of one sequence, for steps to append and to ask with.

    Args:
        keys: [layers, num_kv_heads, tokens, head_dim].
        values: as keys.
        queries: [layers, num_heads, tokens, head_dim]; neighbouring heads share a KV head.
        about: what it is, for people.
    """

    keys: Tensor
    values: Tensor
    queries: Tensor
    about: str


class RecordedInputs:
    """A recording to append and to ask with: the token at position p of any sequence is the recording's token p.

    Beyond its last token it begins again at its first. Layer i is the recording's layer i modulo its layers; rows are
    alike.

    Args:
        recording: in the geometry's heads, head_dim and dtype.
        geometry: the shape of a token.
        num_rows: rows of a batch.
        max_append_tokens: tokens of the largest append.
        device: where the tensors live.
        sequences: those that are live, by which positions are known.
    """

    def __init__(
        self,
        recording: Recording,
        geometry: KVGeometry,
        num_rows: int,
        max_append_tokens: int,
        device: torch.device,
        sequences: Mapping[int, SequenceStore],
    ) -> None:
        def rows(tensor: Tensor) -> Tensor:
            return tensor.to(device).unsqueeze(1).expand(-1, num_rows, -1, -1, -1)

        num_recorded, _, self._num_tokens, _ = recording.keys.shape
        self._layers = [layer % num_recorded for layer in range(geometry.num_layers)]
        self._piece_tokens = min(max(max_append_tokens, 1), MAX_PIECE_TOKENS)
        self._group_size = geometry.plain.heads_per_kv_head
        self._keys, self._values = rows(recording.keys), rows(recording.values)
        self._queries = rows(packed(recording.queries, geometry.plain.num_kv_heads))
        self._sequences = sequences

    def pieces(self, op: Append) -> list[tuple[Append, list[Tensor], list[Tensor]]]:
        """An append with its keys and values, in pieces where it is very long or runs over the recording's end."""
        first = self._sequences[op.seq].num_seen
        return [
            (Append(op.seq, count, op.area), self._cut(self._keys, start, count), self._cut(self._values, start, count))
            for _, start, count in self._stretches(first, op.num_tokens, self._piece_tokens)
        ]

    def chunks(self, first: int, num_queries: int, size: int) -> list[list[Chunk]]:
        """Queries of consecutive tokens, a layer each.

        Args:
            first: position of the first.
            num_queries: how many tokens' queries.
            size: tokens of a chunk at most.
        """
        group = self._group_size
        found: list[list[Chunk]] = [[] for _ in self._layers]
        for position, start, count in self._stretches(first, num_queries, size):
            for own, queries in zip(found, self._cut(self._queries, start * group, count * group), strict=True):
                own.append((position, queries))
        return found

    def _stretches(self, first: int, num_tokens: int, size: int) -> Iterator[tuple[int, int, int]]:
        """Positions in parts of at most so many: the position, the recording's token there, and how many follow on."""
        position, end = first, first + num_tokens
        while position < end:
            start = position % self._num_tokens
            count = min(size, end - position, self._num_tokens - start)
            yield position, start, count
            position += count

    def _cut(self, tensor: Tensor, start: int, count: int) -> list[Tensor]:
        parts = tensor.narrow(3, start, count).unbind(0)
        return [parts[layer] for layer in self._layers]
