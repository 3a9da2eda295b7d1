"""Rates of a machine that was measured: seconds by size, with straight lines between the sizes that were measured."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kvbench.backend.rates import NO_DECODING, Decoding, Read
from kvbench.ledger import AreaCost, Posting
from kvbench.ledger.accounts import Holding
from kvbench.model.geometry import KVGeometry
from kvbench.model.hardware import Hardware
from kvbench.plan.area import DEVICE, DISK, HOST, NORM, STAGING_TOKENS, Area, Blocks, Cast, Chunks, Native, Packed
from kvbench.plan.ops import Append, Keep, Plan, Reserve
from kvbench.timing.prices import PS_PER_S

CURVES = {
    "allocate": "seconds a tensor, by its bytes: new storage, its pages taken",
    "free": "seconds a tensor, by its bytes: its storage given back",
    "copy": "seconds a tensor, by bytes of live slots: copied to another one",
    "append": "seconds a layer, by tokens: written behind the live ones, in one piece",
    "append_piece": "seconds a layer, by tokens: each further piece, where chunks or blocks part them",
    "decode": "seconds a layer, by slots: attention of one query over slots that lie together",
    "merge": "seconds a layer, by queries: attention over one more part merged into that over the others",
    "gather": "seconds a layer, by slots: blocks gathered into staging buffers",
    "staged": "seconds a layer, by slots: attention of one query over slots just brought there, all parts merged",
    "fetch_host": "seconds a layer, by slots: brought from the host's memory into staging buffers",
    "fetch_disk": "seconds a layer, by slots: brought from files into staging buffers",
    "store_host": "seconds a layer, by slots: moved to the host's memory",
    "store_disk": "seconds a layer, by slots: moved to files",
    "rank": "seconds a layer, by slots: ranked by their norms",
    "close": "seconds a layer, by slots kept: copied together where others were evicted",
    "host": "seconds a step, by operations booked one by one (0: it only appends, to room that is there): the host's "
    "own work, a strategy's plan, its booking and its row",
}
"""What a calibrated machine's file holds; sizes are those of the geometry that it was calibrated with.

Besides, for several N, `queries_N`: seconds a layer, by slots: attention of N queries over them, N up to the queries
that prompts attend with at once; for numbers of bits that are to be priced, `pack_B`: seconds a layer, by tokens:
rounded to B bits, and `restore_B`: by slots: restored into staging buffers; and for dtypes that are, `cast_DTYPE` in
place of `append`, and `restore_DTYPE`.

On an accelerator these are times for which it is busy, and of each NAME there is `launch_NAME`: the host's to give it
that work. What takes longer is what a step waits for.
"""
LAUNCH = "launch_"
QUERIES = "queries_"
SHAPE = ("dtype", "num_heads", "num_kv_heads", "head_dim", "num_rows")
"""What a calibration was made with: what must be the same for its sizes to hold as they are."""
PACKED_TENSORS = 6
"""Tensors of a layer's packed chunk: codes, scales and minima of K, then of V."""


class PiecewiseLinear:
    """Seconds by size: straight between points; the first and the last stretch go on.

    Args:
        points: [size, seconds], sizes growing, at least two.
    """

    def __init__(self, points: Sequence[Sequence[float]]) -> None:
        self._sizes = [float(size) for size, _ in points]
        self._seconds = [float(seconds) for _, seconds in points]

    def at(self, size: float) -> float:
        """Seconds for a size; never below 0."""
        sizes, seconds = self._sizes, self._seconds
        right = min(max(bisect_right(sizes, size), 1), len(sizes) - 1)
        slope = (seconds[right] - seconds[right - 1]) / (sizes[right] - sizes[right - 1])
        return max(seconds[right - 1] + (size - sizes[right - 1]) * slope, 0.0)

    def share(self, size: float, whole: float) -> float:
        """Seconds for a part of what is gone over in turn: what is fixed, and the part's share of the rest.

        A processor's caches keep no more of the part than they keep of the whole.
        """
        if whole <= size:
            return self.at(size)
        fixed = self.at(0)
        return max(fixed + (self.at(whole) - fixed) * size / whole, self.at(size))


def lines_of(curves: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, PiecewiseLinear]:
    """A line a curve; where launching has a curve too, through what takes longer at the sizes of both."""
    found = {name: PiecewiseLinear(points) for name, points in curves.items()}
    for name in curves:
        both = found[name], found.get(LAUNCH + name)
        if both[1] is not None:
            sizes = sorted({size for each in (name, LAUNCH + name) for size, _ in curves[each]})
            found[name] = PiecewiseLinear([(size, max(both[0].at(size), both[1].at(size))) for size in sizes])
    return found


class Lines:
    """A line each for several numbers, such as of queries; straight between those numbers too.

    Args:
        lines: by number; at least two.
    """

    def __init__(self, lines: Mapping[int, PiecewiseLinear]) -> None:
        self._numbers = sorted(lines)
        self._lines = [lines[number] for number in self._numbers]

    @property
    def largest(self) -> int:
        """The largest number that has a line of its own."""
        return self._numbers[-1]

    def at(self, number: float, size: float) -> float:
        """Seconds for a number and a size; never below 0."""
        points = [(each, line.at(size)) for each, line in zip(self._numbers, self._lines, strict=True)]
        return PiecewiseLinear(points).at(number)


LARGE_APPEND = 1_024
"""Tokens, of which one more costs what one of them does."""


class Curves:
    """Rates from measured curves, of the cache alone.

    Another geometry than the calibrated one is priced as well: its bytes count as so many slots of the calibrated one,
    its layers as so many times one; `deviation` says so.

    Args:
        hardware: with curves, and what they were measured with.
        geometry: of the model to price.
        num_rows: rows of every sequence's batch.
    Raises:
        ValueError: a curve or what the machine was calibrated for is missing, or layers do not all hold K and V of all
            tokens.
    """

    def __init__(self, hardware: Hardware, geometry: KVGeometry, num_rows: int) -> None:
        if not geometry.is_plain:
            raise ValueError(
                f"{hardware.name} was calibrated for layers that hold K and V of all tokens, and "
                f"{geometry.name or 'the model'} has latent attention or sliding-window layers; use a data sheet's "
                "hardware, such as hardware=h100"
            )
        self._calibrated = _calibrated_for(hardware)
        self._lines = lines_of(hardware.curves or {})
        self._queries = Lines(_queries_of(hardware, self._lines))
        self._geometry = geometry
        self._num_rows = num_rows
        known = KVGeometry.uniform(num_layers=1, **{name: self._calibrated[name] for name in SHAPE[:-1]})
        rows: float = num_rows / self._calibrated["num_rows"]
        self._layer_bytes = geometry.bytes_per_token // geometry.num_layers * num_rows
        self._scale = self._layer_bytes / (known.bytes_per_token * self._calibrated["num_rows"])
        self._pair_scale = geometry.pair_flops / geometry.num_layers / known.pair_flops * rows

    @property
    def deviation(self) -> str:
        """How the geometry differs from the calibrated one, and what that means; empty where it does not."""
        asked = {name: getattr(self._geometry.plain, name, self._num_rows) for name in SHAPE}
        others = [f"{name} {self._calibrated[name]}" for name in SHAPE if self._calibrated[name] != asked[name]]
        return f"calibrated with {', '.join(others)}; extrapolated" if others else ""

    def iteration_ps(self) -> int:
        """Nothing: each step has a fixed cost of its own."""
        return 0

    def token_ps(self) -> int:
        """What writing one takes, in a large append."""
        return self._layers_ps(self._sized("append", LARGE_APPEND)) // LARGE_APPEND

    def linear_ps(self, num_tokens: int, num_sequences: int) -> int:
        """Nothing: the cache alone is priced."""
        return 0

    def host_ps(self, plan: Plan, continued: bool) -> int:
        """The host's own work; of a continued step, booking alone."""
        is_common = bool(plan) and type(plan[-1]) is Append and all(type(op) in (Keep, Append) for op in plan)
        host = self._lines["host"]
        return _ps(host.at(0 if is_common else len(plan)) - (host.at(0) if continued else 0.0))

    def reserve_ps(self, op: Reserve, posting: Posting, cost: AreaCost, since_bytes: int) -> int:
        """New tensors, live slots copied, old tensors given back; pools and staging buffers with the first reserve."""
        layout, new_tokens, old_tokens = cost.area.layout, op.num_tokens, posting.num_before
        new_bytes, old_bytes = cost.bytes_of(new_tokens), cost.bytes_of(old_tokens)
        own_bytes, seconds = 0, 0.0
        if isinstance(layout, Chunks):
            own_bytes = max(new_bytes - old_bytes, 0)
            seconds = self._chunks(cost, new_tokens - old_tokens)
        elif not isinstance(layout, Blocks):
            own_bytes = new_bytes
            seconds = self._tensors("allocate", new_bytes) + self._tensors("copy", posting.copied_bytes, since_bytes)
            seconds += self._tensors("free", old_bytes)
        shared_bytes = max(posting.requested_bytes - own_bytes, 0)
        return _ps(seconds + self._tensors("allocate", shared_bytes))

    def release_ps(self, holdings: Iterable[Holding]) -> int:
        """All tensors given back; blocks go to their pool."""
        seconds = 0.0
        for held in holdings:
            if isinstance(held.cost.area.layout, Chunks):
                seconds += self._chunks(held.cost, -held.capacity)
            elif not isinstance(held.cost.area.layout, Blocks):
                for num_tokens in (held.capacity, held.next_capacity):
                    seconds += self._tensors("free", held.cost.bytes_of(num_tokens))
        return _ps(seconds)

    def _tensors(self, name: str, num_bytes: int, since_bytes: int = 0) -> float:
        """So many bytes in all, spread evenly over the tensors of a contiguous area."""
        num = self._geometry.num_tensors
        return num * self._lines[name].share(num_bytes / num, (num_bytes + since_bytes) / num) if num_bytes else 0.0

    def _chunks(self, cost: AreaCost, added_tokens: int) -> float:
        """Chunks made; where fewer, let go."""
        layout, num_tensors = cost.area.layout, self._geometry.num_tensors
        assert isinstance(layout, Chunks)
        unit = layout.num_tokens
        if isinstance(cost.area.format, Packed):
            num_tensors = PACKED_TENSORS * self._geometry.num_layers
        line = self._lines["allocate" if added_tokens > 0 else "free"]
        return abs(added_tokens) // unit * num_tensors * line.at(cost.bytes_of(unit) / num_tensors)

    def copy_ps(self, num_bytes: int) -> int:
        """Slots copied on the device."""
        return _ps(self._tensors("copy", num_bytes))

    def append_ps(self, cost: AreaCost, num_tokens: int) -> int:
        """New tokens written, piece by piece where chunks or blocks part them."""
        return self._layers_ps(self._written(cost.area, num_tokens))

    def _written(self, area: Area, num_tokens: int) -> float:
        if isinstance(area.format, Packed):
            return self._sized(f"pack_{area.format.bits}", num_tokens)
        once = f"cast_{area.format.dtype}" if isinstance(area.format, Cast) else "append"
        unit = area.layout.num_tokens if isinstance(area.layout, Chunks | Blocks) else num_tokens
        num_more, rest = divmod(max(num_tokens - unit, 0), unit)
        seconds = self._sized(once, min(num_tokens, unit)) + num_more * self._sized("append_piece", unit)
        return seconds + (self._sized("append_piece", rest) if rest else 0.0)

    def evict_ps(self, op: Keep, posting: Posting, cost: AreaCost) -> int:
        """Slots ranked by norm, and those kept copied together."""
        ranked = self._sized("rank", posting.num_before) if op.rule.by == NORM else 0.0
        return self._layers_ps(ranked + self._closed(cost, posting))

    def _closed(self, cost: AreaCost, posting: Posting) -> float:
        num_copied = posting.copied_bytes * cost.unit_tokens / cost.unit_bytes
        return self._sized("close", num_copied) if num_copied else 0.0

    def move_ps(self, posting: Posting, src: AreaCost, dst: AreaCost) -> int:
        """Slots brought from where they are and written where they go; the rest copied together."""
        num_moved = posting.moved_bytes * dst.unit_tokens // dst.unit_bytes
        seconds = self._closed(src, posting)
        if not isinstance(src.area.format, Native):
            seconds += self._sized(_restoring(src.area), num_moved)
        if not isinstance(dst.area.format, Native) or src.area.tier == dst.area.tier == DEVICE:
            seconds += self._written(dst.area, num_moved)
        if dst.area.tier in (HOST, DISK):
            seconds += self._sized(f"store_{dst.area.tier}", self._over_link(dst, num_moved))
        elif src.area.tier in (HOST, DISK):
            seconds += self._sized(f"fetch_{src.area.tier}", self._over_link(src, num_moved))
        return self._layers_ps(seconds)

    def attend_ps(
        self, reads: tuple[Read, ...], num_queries: int, since_bytes: int, decoding: Decoding = NO_DECODING
    ) -> int:
        """Attention part by part: what brings the parts to staging buffers, reads them, and merges them."""
        num_slots = sum(read.num_slots for read in reads)
        if not num_slots:
            return 0
        # A layer's slots are read again once all layers, and what others read meanwhile, have gone by.
        whole = num_slots * self._geometry.num_layers + since_bytes / self._layer_bytes
        seconds = sum(self._brought(read, whole) for read in reads if read.cost.area.is_staged)
        if num_queries > 1:
            return self._layers_ps(seconds + self._prefill(reads, min(num_queries, num_slots)))
        num_parts = 0
        for read in reads:
            if read.cost.area.is_staged:
                seconds += self._sized("staged", read.num_slots)
                num_parts += 1
                continue
            parts = _parts(read)
            seconds += sum(self._sized("decode", part, whole) for part in parts)
            num_parts += len(parts)
        return self._layers_ps(seconds + (num_parts - 1) * self._merged(1))

    def _brought(self, read: Read, whole: float) -> float:
        area = read.cost.area
        seconds = 0.0
        if area.tier != DEVICE:
            seconds = self._sized(f"fetch_{area.tier}", self._over_link(read.cost, read.num_slots), whole)
        if not isinstance(area.format, Native):
            return seconds + self._sized(_restoring(area), read.num_slots, whole)
        return seconds if seconds else self._sized("gather", read.num_slots, whole)

    def _over_link(self, cost: AreaCost, num_slots: int) -> float:
        """As many slots, as the model gives them, as have the bytes of some that are cast; of others, so many."""
        if not isinstance(cost.area.format, Cast):
            return num_slots
        return num_slots * cost.unit_bytes / (self._geometry.bytes_per_token * self._num_rows)

    def _prefill(self, reads: tuple[Read, ...], num_queries: int) -> float:
        """New tokens in pieces of so many queries as attend at once; each piece over the parts that it may look at."""
        parts = [part for read in reads for part in _parts(read)]
        is_in_place = len(reads) == 1 and not reads[0].cost.area.is_staged
        end, seconds = sum(parts), 0.0
        for first in range(end - num_queries, end, self._queries.largest):
            num_now = min(self._queries.largest, end - first)
            start, num_seen = 0, 0
            for part in parts:
                if start < first + num_now:
                    seen = min(part, first + num_now - start) if is_in_place else part
                    seconds += self._queries.at(num_now, seen) * self._pair_scale
                    num_seen += 1
                start += part
            seconds += (num_seen - 1) * self._merged(num_now)
        return seconds

    def _merged(self, num_queries: int) -> float:
        return self._lines["merge"].at(num_queries) * self._pair_scale

    def _sized(self, name: str, size: float, whole: float = 0.0) -> float:
        """Seconds a layer for tokens or slots, as calibrated ones of as many bytes (whole: `PiecewiseLinear.share`)."""
        if name not in self._lines:
            raise ValueError(f"the machine was not calibrated for {name}: its file has {', '.join(self._lines)}")
        return self._lines[name].share(size * self._scale, whole * self._scale)

    def _layers_ps(self, seconds: float) -> int:
        return _ps(self._geometry.num_layers * seconds)


def _restoring(area: Area) -> str:
    """The curve of bringing an area's slots, packed or cast, back to K and V."""
    assert not isinstance(area.format, Native)
    return f"restore_{area.format.bits if isinstance(area.format, Packed) else area.format.dtype}"


def _parts(read: Read) -> list[int]:
    """Slots of each part that attention reads by itself."""
    layout = read.cost.area.layout
    unit = layout.num_tokens if isinstance(layout, Chunks) else read.num_slots
    if read.cost.area.is_staged:
        unit = STAGING_TOKENS
    full, rest = divmod(read.num_slots, unit)
    return [unit] * full + [rest] * (rest > 0)


def _calibrated_for(hardware: Hardware) -> dict[str, Any]:
    """What a machine was calibrated for, and has curves for.

    Raises:
        ValueError: something is missing.
    """
    found = dict(hardware.calibrated_for or {})
    missing = [name for name in SHAPE if name not in found]
    if missing:
        raise ValueError(f"{hardware.name}: hardware.calibrated_for lacks {', '.join(missing)}")
    missing = [name for name in CURVES if name not in (hardware.curves or {})]
    if missing:
        raise ValueError(f"{hardware.name}: hardware.curves lacks {', '.join(missing)}")
    return found


def _queries_of(hardware: Hardware, lines: Mapping[str, PiecewiseLinear]) -> dict[int, PiecewiseLinear]:
    """The lines by number of queries.

    Raises:
        ValueError: there are fewer than two.
    """
    ends = {name.removeprefix(QUERIES): line for name, line in lines.items() if name.startswith(QUERIES)}
    found = {int(end): line for end, line in ends.items() if end.isdecimal()}
    if len(found) < 2:  # noqa: PLR2004
        raise ValueError(f"{hardware.name}: hardware.curves lacks {QUERIES}N for at least two N")
    return found


def _ps(seconds: float) -> int:
    return round(seconds * PS_PER_S)
