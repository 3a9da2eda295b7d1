"""The keys of a published configuration, asked for one by one, so that those nobody asked for can be judged."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from kvbench.messages import cut, unknown
from kvbench.model.groups import MOST_SIZE
from kvbench.model.published.harmless import is_harmless

MOST_LAYERS = 2_000


class Fields:
    """A model's keys, typed, with its class's defaults behind them.

    Args:
        given: the configuration, of the text model where there are several.
        family: its model_type, for messages.
        defaults: what the family's class takes for a key that is absent.
        aliases: other names of keys.
    """

    def __init__(
        self,
        given: Mapping[str, Any],
        family: str,
        defaults: Mapping[str, Any] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.family = family
        self._defaults = defaults or {}
        self._given: dict[str, Any] = {}
        self._asked: set[str] = set()
        self.widest = 0
        self.dtype = "bfloat16"
        for key, value in given.items():
            name = (aliases or {}).get(key, key)
            if name != key and given.get(name) not in (None, value):
                raise ValueError(f"{self.where}: {key} and {name} say the same, got {_shown(value)} and {given[name]}")
            if self._given.get(name) is None:
                self._given[name] = value

    @property
    def where(self) -> str:
        """What messages call the configuration."""
        return f"configuration of {cut(self.family, 40)}"

    def has(self, key: str) -> bool:
        """Whether a key is given, and not null."""
        return self._given.get(key) is not None

    def value(self, key: str, default: object = None) -> Any:
        """What a key holds; where it is absent or null, the class's default or this one."""
        self._asked.add(key)
        found = self._given.get(key)
        if found is None:
            found = self._defaults.get(key)
        return default if found is None else found

    def number(self, key: str, default: int | None = None, *, least: int = 1, most: int = MOST_SIZE) -> int:
        """An integer.

        Raises:
            ValueError: it is absent and has no default, is no integer, or is out of the range.
        """
        found = self.value(key, default)
        if found is None:
            raise ValueError(self._lacks(key))
        if type(found) is not int or not least <= found <= most:
            raise self.refused(key, f"an integer of at least {least} and at most {most:,}", found)
        return found

    def optional(self, key: str) -> int | None:
        """A positive integer; None where it is null, 0, or absent without a default of the class."""
        if key in self._given and self._given[key] is None:
            self._asked.add(key)
            return None
        return self.number(key, 0, least=0) or None

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false.

        Raises:
            ValueError: it is neither.
        """
        found = self.value(key, default)
        if type(found) is not bool:
            raise self.refused(key, "true or false", found)
        return found

    def choice(self, key: str, allowed: Iterable[str], default: str | None = None) -> str:
        """One of a few words.

        Raises:
            ValueError: it is none of them.
        """
        found, allowed = self.value(key, default), tuple(allowed)
        if found is None:
            raise ValueError(self._lacks(key))
        if not isinstance(found, str) or found not in allowed:
            raise ValueError(f"{self.where}: {unknown(key, _shown(found), allowed)}")
        return found

    def listed(self, key: str, allowed: Iterable[object], length: int | None = None) -> list[Any] | None:
        """A list with an item a layer, each one of a few values; None where it is absent or null.

        Raises:
            ValueError: it is no list, has another length, or has another item.
        """
        found, allowed = self.value(key), tuple(allowed)
        if found is None:
            return None
        length = self.num_layers if length is None else length
        if not isinstance(found, list) or len(found) != length:
            got = f"{len(found)} items" if isinstance(found, list) else _shown(found)
            raise ValueError(f"{self.where}: {key} is a list of {length}, an item a layer, got {got}")
        for item in found:
            if not any(type(item) is type(known) and item == known for known in allowed):
                raise ValueError(f"{self.where}: {unknown(f'item of {key}', _shown(item), map(str, allowed))}")
        return found

    @property
    def num_layers(self) -> int:
        """num_hidden_layers."""
        return self.number("num_hidden_layers", most=MOST_LAYERS)

    @property
    def layers(self) -> tuple[int, ...]:
        """The numbers of all layers."""
        return tuple(range(self.num_layers))

    @property
    def hidden(self) -> int:
        """hidden_size."""
        return self.number("hidden_size")

    def wide(self, width: int) -> int:
        """A width of a token's feed-forward part, of which the widest is remembered."""
        self.widest = max(self.widest, width)
        return width

    def refused(self, key: str, allowed: str, found: object) -> ValueError:
        """The error of a value that a key cannot have."""
        return ValueError(f"{self.where}: {key} is {allowed}, got {_shown(found)}")

    def check_all_known(self) -> None:
        """Refuse a key that may change the cache or the parameters, and that the family's reader did not ask for.

        Raises:
            ValueError: there is such a key.
        """
        known = self._asked | set(self._defaults)
        without_windows = self._given.get("use_sliding_window") is False
        for key, value in self._given.items():
            if key in known or not value or is_harmless(key) or (without_windows and "window" in key):
                continue
            raise ValueError(
                f"{self.where}: {cut(key)} may change its cache, and is not understood, got {_shown(value)}"
                f"{_nearest(key, known)}"
            )

    def _lacks(self, key: str) -> str:
        return f"{self.where} lacks {key}{_nearest(key, set(self._given) - self._asked)}"


def _nearest(key: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(key[:80], [name[:80] for name in sorted(known)][:500], n=1, cutoff=0.6)
    return f"; the nearest that is known is {nearest[0]}" if nearest else ""


def _shown(value: object) -> str:
    """A value for a message; a list or mapping only by its kind and length, which may be large."""
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'mapping'} of {len(value):,}"
    return cut(repr(value))
