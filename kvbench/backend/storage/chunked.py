"""Slots in chunks of one size, on any tier, native or packed."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from kvbench.backend.storage.base import Fill, Pair, Part, Piece, Positions, Shape, narrowed
from kvbench.backend.storage.casting import Casting
from kvbench.backend.storage.memory import Memory
from kvbench.backend.storage.transfer import carry, sent
from kvbench.plan.area import Area, Chunks
from kvbench.plan.ops import Rule

Cut = tuple[int, int, int, int]
"""Live slots of a chunk: its number, the first of them, how many, and how many live slots came before."""


class ChunkedStore:
    """A list of chunks for each layer; a chunk is a K, a V and, where they are kept, positions.

    Args:
        area: how it lives; its layout is chunks.
        shape: of its tensors.
        memory: where they live.
        casting: how K and V change on their way in and out; None: not at all.
    """

    __slots__ = (
        "_arriving",
        "_beside",
        "_casting",
        "_chunk_tokens",
        "_is_near",
        "_memory",
        "_offset",
        "_shape",
        "area",
        "chunks",
        "first_position",
        "num_used",
        "tracks",
    )

    def __init__(self, area: Area, shape: Shape, memory: Memory, casting: Casting | None = None) -> None:
        self.area = area
        self._shape = shape
        self._casting = casting
        self._memory = memory
        self._is_near = memory.device == shape.device
        layout = area.layout
        assert isinstance(layout, Chunks)
        self._chunk_tokens = layout.num_tokens
        self._offset = self.num_used = self.first_position = 0
        self._arriving: torch.Event | None = None
        self._beside: list[Pair] = []  # where tokens belong that arrive beside it, and where that is
        self.chunks: list[list[list[Tensor]]] = [[] for _ in range(shape.num_layers)]
        self.tracks: list[list[Tensor]] = [[] for _ in range(shape.num_layers if area.positions else 0)]

    def reserve(self, capacity: int) -> None:
        """Add chunks, or drop the last ones. See `Store.reserve`."""
        num_chunks = capacity // self._chunk_tokens
        for chunks in self.chunks:
            del chunks[num_chunks:]
            while len(chunks) < num_chunks:
                chunks.append(self._new_chunk())
        for tracks in self.tracks:
            del tracks[num_chunks:]
            size = (self._shape.num_rows, self._shape.num_heads, self._chunk_tokens)
            while len(tracks) < num_chunks:
                tracks.append(self._memory.empty(size, torch.int32))

    def _new_chunk(self) -> list[Tensor]:
        shape, num_tokens = self._shape, self._chunk_tokens
        keys = self._memory.empty(shape.of(num_tokens), shape.dtype)
        return [keys, keys if shape.is_latent else self._memory.empty(shape.values_of(num_tokens), shape.dtype)]

    def append(self, keys: list[Tensor], values: list[Tensor], num_tokens: int, position: int) -> None:
        """Piece by piece, where an append crosses from one chunk into the next. See `Store.append`."""
        self._write(keys, values, num_tokens, range(position, position + num_tokens))

    def receive(self, part: Part) -> None:
        """See `Store.receive`."""
        self._write(part.keys, part.values, part.num_tokens, part.positions)

    def _write(
        self, keys: list[Tensor], values: list[Tensor], num_tokens: int, positions: range | list[Tensor]
    ) -> None:
        if self._casting is not None:
            keys, values = self._casting.lowered(keys, values)
        if not self.num_used and isinstance(positions, range):
            self.first_position = positions.start
        if self._beside:
            self._arrived()
        done, is_coming = 0, False
        while done < num_tokens:
            number, start = divmod(self._offset + self.num_used, self._chunk_tokens)
            count = min(num_tokens - done, self._chunk_tokens - start)
            for layer, chunks in enumerate(self.chunks):
                is_coming |= self._put(chunks[number], keys[layer], values[layer], start, done, count)
            for layer, tracks in enumerate(self.tracks):
                cut = narrowed(positions, done, count)
                target = tracks[number].narrow(2, start, count)
                if isinstance(cut, range):
                    target.copy_(torch.arange(cut.start, cut.stop, dtype=torch.int32, device=target.device))
                else:
                    carry(target, cut[layer])
            done += count
            self.num_used += count
        if is_coming:
            self._arriving = torch.Event(device=self._shape.device)
            self._arriving.record()

    def _arrived(self) -> None:
        """Wait on the host for what is on its way to it, before the host reads or moves it; the device needs not."""
        if self._arriving is not None:
            self._arriving.synchronize()
            for target, arrived in self._beside:
                target.copy_(arrived)
            self._arriving = None
            self._beside.clear()

    def _put(self, chunk: Sequence[Tensor], keys: Tensor, values: Tensor, start: int, done: int, count: int) -> bool:
        """Write count tokens, from the done-th, into a chunk from slot start on; whether some are on their way."""
        is_coming = False
        for target, new in list(zip(chunk, (keys, values), strict=True))[: 2 - self._shape.is_latent]:
            if self._is_near:
                target[:, :, start : start + count] = new[:, :, done : done + count]
            else:
                place = target.narrow(2, start, count)
                arriving = sent(place, new.narrow(2, done, count))
                is_coming |= arriving is not None
                if arriving is not None and arriving is not place:
                    self._beside.append((place, arriving))
        return is_coming

    def _cuts(self) -> list[Cut]:
        """Each chunk's live slots."""
        cuts, done, start = [], 0, self._offset
        for number in range(len(self.chunks[0])):
            count = min(self._chunk_tokens - start, self.num_used - done)
            if count <= 0:
                break
            cuts.append((number, start, count, done))
            done += count
            start = 0
        return cuts

    def read(self, layer: int) -> list[Pair]:
        """A pair a chunk that holds tokens. See `Store.read`."""
        if not self._offset and self._casting is None:
            full, rest = divmod(self.num_used, self._chunk_tokens)
            pairs = cast(list[Pair], self.chunks[layer][:full])  # no tuple is made of each
            if rest:
                keys, values = self.chunks[layer][full]
                pairs.append((keys.narrow(2, 0, rest), values.narrow(2, 0, rest)))
            return pairs
        return [(piece.keys, piece.values) for piece in self.pieces(layer)]

    def pieces(self, layer: int) -> list[Piece]:
        """A piece a chunk that holds tokens. See `Store.pieces`."""
        self._arrived()
        return [self._piece(layer, cut) for cut in self._cuts()]

    def _piece(self, layer: int, cut: Cut) -> Piece:
        pair = self._pair(layer, cut)
        if self._casting is not None:
            pair = self._casting.restored(layer, pair)
        return Piece(*pair, self._positions(layer, cut))

    def _pair(self, layer: int, cut: Cut) -> Pair:
        """Live slots where they lie, as they are held."""
        number, start, count, _ = cut
        keys, values = (tensor.narrow(2, start, count) for tensor in self.chunks[layer][number])
        return keys, values

    def _positions(self, layer: int, cut: Cut) -> Positions:
        return self._track(layer, cut) if self.tracks else self._stretch([cut])

    def _track(self, layer: int, cut: Cut) -> Tensor:
        """The positions that are kept of live slots."""
        number, start, count, _ = cut
        return self.tracks[layer][number].narrow(2, start, count)

    def _stretch(self, cuts: list[Cut]) -> range:
        """The positions of live slots that lie behind each other, where none are kept."""
        (_, _, _, before), (_, _, count, done) = cuts[0], cuts[-1]
        return range(self.first_position + before, self.first_position + done + count)

    def fills(self, layer: int, part_tokens: int) -> list[Fill]:
        """Copies of live slots, as many as a buffer holds, where they are not on the device. See `Store.fills`."""
        if not self.area.is_staged:
            return []
        parts: list[list[Cut]] = []
        left = 0
        for number, start, count, done in self._cuts():
            while count:
                if not left:
                    parts.append([])
                    left = part_tokens
                taken = min(count, left)
                parts[-1].append((number, start, taken, done))
                start, count, done, left = start + taken, count - taken, done + taken, left - taken
        return [self._fill(layer, cuts) for cuts in parts]

    def _fill(self, layer: int, cuts: list[Cut]) -> Fill:
        def fill(keys: Tensor, values: Tensor) -> Piece:
            count = sum(cut[2] for cut in cuts)
            keys, values = keys.narrow(2, 0, count), values.narrow(2, 0, count)
            self._bring(layer, cuts, keys, values)
            positions: Positions = self._stretch(cuts)
            if self.tracks:
                found = torch.cat([self._track(layer, cut) for cut in cuts], dim=2)
                positions = torch.empty_like(found, device=keys.device)
                carry(positions, found)
            return Piece(keys, values, positions)

        return fill

    def _bring(self, layer: int, cuts: list[Cut], keys: Tensor, values: Tensor) -> None:
        """Copy live slots that lie behind each other to where they are read."""
        done = 0
        for cut in cuts:
            held = self._pair(layer, cut)
            if self._beside or not held[0].is_contiguous():
                self._arrived()
            carry(keys.narrow(2, done, cut[2]), held[0])
            if not self._shape.is_latent:
                carry(values.narrow(2, done, cut[2]), held[1])
            done += cut[2]
        if self._casting is not None:
            self._casting.restore(layer, keys, values)

    def leaving(self, rule: Rule) -> list[Part]:
        """Views of the oldest slots, a part a chunk. See `Store.leaving`."""
        self._arrived()
        left = self.num_used - rule.num_kept(self.num_used)
        parts = []
        for number, start, count, done in self._cuts():
            taken = min(count, left)
            if taken:
                cut = (number, start, taken, done)
                layers = range(self._shape.num_layers)
                pieces = [self._piece(layer, cut) for layer in layers]
                positions = [self._track(layer, cut) for layer in layers] if self.tracks else self._stretch([cut])
                parts.append(Part(taken, [p.keys for p in pieces], [p.values for p in pieces], positions))
            left -= taken
        return parts

    def keep(self, rule: Rule) -> None:
        """Drop the oldest slots, and each chunk that holds no others. See `Store.keep`."""
        num_evicted = self.num_used - rule.num_kept(self.num_used)
        num_chunks, self._offset = divmod(self._offset + num_evicted, self._chunk_tokens)
        for chunks in self.chunks:
            del chunks[:num_chunks]
        for tracks in self.tracks:
            del tracks[:num_chunks]
        self.first_position += num_evicted
        self.num_used -= num_evicted
        if not self.num_used:
            self._offset = 0

    def select_rows(self, index: Tensor, shape: Shape) -> None:
        """See `Store.select_rows`."""
        self._arrived()
        for chunks in self.chunks:
            for chunk in chunks:
                if shape.is_latent:
                    chunk[:] = [self._memory.rows(chunk[0], index)] * 2
                    continue
                for number, tensor in enumerate(chunk):
                    chunk[number] = self._memory.rows(tensor, index)
        for tracks in self.tracks:
            for number, tensor in enumerate(tracks):
                tracks[number] = self._memory.rows(tensor, index)
        self._shape = shape

    def truncate(self, num_tokens: int) -> None:
        """See `Store.truncate`."""
        self._arrived()  # or what comes later would be overwritten
        self.num_used -= num_tokens

    def release(self) -> None:
        """Nothing is shared."""
