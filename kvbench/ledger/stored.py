"""Copies of named blocks in tiers below the device: which names, in which order, and bytes that went there and back."""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping

from kvbench.ledger.names import Named

Copies = dict[Hashable, Named]
"""Names of a tier's copies, the one that was stored longest ago first."""
_END = object()


class Stored:
    """What tiers below the device keep.

    Args:
        sizes: bytes of each tier, the next below the device first.
    Attributes:
        copies: by tier.
        num_bytes: of all copies.
        written_bytes: by tier, what was put in.
        loaded_bytes: by tier, what the device took from it.
        prefetched_bytes: by tier, what a tier above took from it.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = dict(sizes)
        self.copies: dict[str, Copies] = {tier: {} for tier in sizes}
        self.num_bytes = 0
        self.written_bytes, self.loaded_bytes, self.prefetched_bytes = (dict.fromkeys(sizes, 0) for _ in range(3))

    def copy(self) -> "Stored":
        """A copy that can be changed alone."""
        other = Stored(self.sizes)
        other.copies = {tier: dict(copies) for tier, copies in self.copies.items()}
        other.num_bytes = self.num_bytes
        for what in ("written_bytes", "loaded_bytes", "prefetched_bytes"):
            setattr(other, what, dict(getattr(self, what)))
        return other


class DraftStored:
    """The same as it would be after some changes; `commit` makes them the ledger's.

    Args:
        stored: the ledger's.
    """

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._put: dict[str, Copies] = {}
        self._ever: dict[str, Copies] = {}
        self._gone: dict[str, set[Hashable]] = {}
        self._oldest: dict[str, Iterator[Hashable]] = {}
        self._first: dict[str, Hashable] = {}
        self._noted: Counter[tuple[str, str]] = Counter()
        self.num_bytes = stored.num_bytes

    @property
    def tiers(self) -> tuple[str, ...]:
        """Those that there are, the next below the device first."""
        return tuple(self._stored.sizes)

    def size(self, tier: str) -> int:
        """Bytes of a tier."""
        return self._stored.sizes[tier]

    def of(self, tier: str, key: Hashable) -> Named | None:
        """The copy of a name; None: there is none."""
        put = self._put.get(tier)
        if put is not None and key in put:
            return put[key]
        return None if key in self._gone.get(tier, ()) else self._stored.copies[tier].get(key)

    def ever(self, tier: str, key: Hashable) -> Named | None:
        """The same, if it is there or was, before the changes or since."""
        put = self._ever.get(tier)
        return put[key] if put is not None and key in put else self._stored.copies[tier].get(key)

    def count(self, tier: str) -> int:
        """Copies in a tier."""
        return len(self._stored.copies[tier]) - len(self._gone.get(tier, ())) + len(self._put.get(tier, ()))

    def oldest(self, tier: str) -> Hashable:
        """The name that was stored longest ago in a tier, which keeps some."""
        gone, known = self._gone.get(tier, ()), self._stored.copies[tier]
        if tier not in self._oldest:
            self._oldest[tier] = iter(known)
            self._first[tier] = next(self._oldest[tier], _END)
        while self._first[tier] in gone:
            self._first[tier] = next(self._oldest[tier], _END)
        first = self._first[tier]
        return next(iter(self._put[tier])) if first is _END else first

    def put(self, tier: str, named: Named) -> None:
        """Make a copy a tier's newest, whether it is there or not."""
        self.take_out(tier, named.key)
        for known in (self._put, self._ever):
            known.setdefault(tier, {})[named.key] = named

    def take_out(self, tier: str, key: Hashable) -> None:
        """Let a tier keep a name no longer."""
        if key in self._put.get(tier, ()):
            del self._put[tier][key]
        elif key in self._stored.copies[tier]:
            self._gone.setdefault(tier, set()).add(key)

    def note(self, tier: str, what: str, num_bytes: int) -> None:
        """Count what went to a tier, or came from it: `what` is the ledger's account of that, written_bytes or so."""
        self._noted[what, tier] += num_bytes

    def commit(self) -> None:
        """Make the changes the ledger's."""
        stored = self._stored
        for tier, gone in self._gone.items():
            for key in gone:
                del stored.copies[tier][key]
        for tier, put in self._put.items():
            stored.copies[tier].update(put)
        for (what, tier), num_bytes in self._noted.items():
            getattr(stored, what)[tier] += num_bytes
        stored.num_bytes = self.num_bytes
