"""A sweep's manifest: what its points are, and with what they are run. Whoever has the folder can run them."""

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import kvbench
from kvbench.files import write_text
from kvbench.results.environment import environment, processor_name

MANIFEST = "manifest.json"
VERSION = 1
"""Of the file; a change that makes a reader of the old ones err raises it."""
MOST_CHUNK, LEAST_CHUNKS = 64, 64
"""Points that a worker takes at once, at most; and chunks that there are at least, as far as points are so many."""
MOST_POINTS = 10_000_000


class NoManifest(ValueError):
    """A folder holds no manifest of a sweep, or none that can be read here."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What a sweep is over.

    Args:
        key: a dotted key, or a group.
        lines: the override of each value, as it is given.
        values: of the key; of a group, what stands there.
        is_group: whether the key is a group.
    """

    key: str
    lines: tuple[str, ...]
    values: tuple[Any, ...]
    is_group: bool = False


@dataclass(frozen=True, kw_only=True)
class Combination:
    """A point of a sweep: a value of each axis.

    Args:
        number: in the sweep, from 0.
        lines: overrides, one an axis.
        values: by key; groups first, as other keys are set in them.
    """

    number: int
    lines: tuple[str, ...]
    values: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that a worker needs to run a sweep's points.

    Args:
        name: of the scenario or the experiment; "" where the sweep is over several.
        axes: the first changes slowest.
        configuration: of all points, with what refers to other keys as it is said.
        overrides: those that all points have, as they are given.
        given: all, those that a sweep is over as they were given.
        are_default: whether no strategy was named, so that the backend says which are compared.
        asked: how it was asked for: arguments, working_directory.
        versions: of code and packages.
        machine: that measures; None where nothing is measured, and any machine gives the same.
    """

    name: str
    axes: tuple[Axis, ...]
    configuration: Mapping[str, Any]
    overrides: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    are_default: bool = True
    asked: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=lambda: versions())
    machine: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return prod(len(axis.values) for axis in self.axes)

    @property
    def swept(self) -> list[str]:
        """Keys that differ between points."""
        return [axis.key for axis in self.axes]

    @property
    def chunk(self) -> int:
        """Points that a worker takes at once."""
        return min(max(len(self) // LEAST_CHUNKS, 1), MOST_CHUNK)

    @property
    def trusted(self) -> tuple[str, ...]:
        """Packages of the user's that it names."""
        return tuple(self.configuration.get("trusted") or ())

    @cached_property
    def identity(self) -> str:
        """What sweeps share that are the same: configuration, points, versions and, of measured ones, the machine."""
        return _digest(self._parts)

    def differences(self, other: "Manifest") -> list[str]:
        """Where another sweep differs from this one, in words: a line each."""
        own, others, found = self._parts, other._parts, []
        for name in own:
            if _text(own[name]) != _text(others[name]):
                pairs = _changed(own[name], others[name]) if name in ("versions", "machine") else []
                found += pairs or [f"the {name} differ" if name != "configuration" else "the configuration differs"]
        return found

    def combination(self, number: int) -> Combination:
        """A point, by its number."""
        rest, digits = number, []
        for axis in reversed(self.axes):
            rest, digit = divmod(rest, len(axis.values))
            digits.append(digit)
        chosen = list(zip(self.axes, reversed(digits), strict=True))
        values = [(axis.key, axis.values[digit], axis.is_group) for axis, digit in chosen]
        values.sort(key=lambda each: not each[2])
        return Combination(
            number=number,
            lines=tuple(axis.lines[digit] for axis, digit in chosen),
            values=tuple((key, value) for key, value, _ in values),
        )

    def chunks(self) -> Iterator[range]:
        """The points, in pieces that are taken at once."""
        return (range(first, min(first + self.chunk, len(self))) for first in range(0, len(self), self.chunk))

    def write(self, folder: Path) -> None:
        """Write it whole into a folder.

        Raises:
            OSError: it cannot be written.
        """
        told = {"version": VERSION, "identity": self.identity, "points": len(self), **asdict(self)}
        write_text(folder / MANIFEST, json.dumps(told) + "\n")

    @property
    def _parts(self) -> dict[str, Any]:
        points = [(axis.key, sorted(zip(axis.lines, map(_text, axis.values), strict=True))) for axis in self.axes]
        return {
            "points": [self.name, points],
            "configuration": [self.configuration, self.are_default],
            "versions": self.versions,
            "machine": self.machine,
        }


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest in a folder.

    Raises:
        NoManifest: there is none, or none that this kvbench reads.
    """
    path = Path(folder) / MANIFEST
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NoManifest(f"{folder} is no folder of a sweep: it has no {MANIFEST}") from error
    except (OSError, ValueError) as error:
        raise NoManifest(f"{path} cannot be read: {error}") from error
    version = told.get("version") if isinstance(told, dict) else None
    if version != VERSION:
        raise NoManifest(f"{path} is a manifest of version {version!r}; this kvbench reads {VERSION}")
    try:
        axes = [axis | {name: tuple(axis[name]) for name in ("lines", "values")} for axis in told["axes"]]
        given = {name: told[name] for name in ("name", "configuration", "are_default", "asked", "versions", "machine")}
        given |= {name: tuple(told[name]) for name in ("overrides", "given")}
        return Manifest(axes=tuple(Axis(**axis) for axis in axes), **given)
    except (KeyError, TypeError) as error:
        raise NoManifest(f"{path} is no manifest of a sweep: {error}") from error


def versions() -> dict[str, Any]:
    """Of Python, packages and kvbench's own code."""
    made = environment()
    return {"python": made["python"], "packages": made["packages"], "code": _code()}


def this_machine() -> dict[str, str]:
    """What tells machines apart whose measured times are not to be joined."""
    return {"host": platform.node(), "cpu": processor_name()}


def _code() -> str:
    """A digest of kvbench's own sources and configuration: a commit tells nothing of what was changed since."""
    home = Path(kvbench.__file__).resolve().parent
    roots = [home, *(path for path in (home.parent / "conf", home.parent / "scenarios") if path.is_dir())]
    found = hashlib.sha256()
    for path in sorted(path for root in roots for end in ("*.py", "*.yaml", "*.json") for path in root.rglob(end)):
        found.update(os.fsencode(path.name) + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def _digest(value: object) -> str:
    return hashlib.sha256(_text(value).encode()).hexdigest()[:32]


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _changed(own: Any, others: Any, where: str = "") -> list[str]:
    """What differs between two mappings, a line a key."""
    if not isinstance(own, Mapping) or not isinstance(others, Mapping):
        return [f"{where or 'it'}: {_shown(own)} there, {_shown(others)} here"]
    found = []
    for key in {**own, **others}:
        if own.get(key) != others.get(key):
            found += _changed(own.get(key), others.get(key), key)
    return found


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
