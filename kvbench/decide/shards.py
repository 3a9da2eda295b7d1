"""What a sweep's workers leave: shards, each a folder with the rows of some points, there whole or not at all.

A point may be in several: it failed and was run again, or two workers took each other for dead. Its rows are then those
of one shard: of one that finished it rather than one that did not, and of those the first.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from pandas.api.types import infer_dtype, union_categoricals

from kvbench.decide.claims import appear
from kvbench.results.results import Results

DONE, STOPPED, FAILED, REFUSED, SKIPPED = "done", "stopped", "failed", "refused", "skipped"
"""What became of a point: finished; ended by a signal, with a part of its rows; broken; bad input; not there."""
FRAMES = ("summary", "requests", "steps", "timeline", "replicas", "replays")
POINT, TOLD = "point", "points.json"


@dataclass(frozen=True, kw_only=True)
class PointOutcome:
    """What became of a point that was run.

    Args:
        state: one of those above.
        results: its rows; None where there are none.
        error: why it is not done, in a line.
        trace: where it broke.
    """

    state: str
    results: Results | None = None
    error: str = ""
    trace: str = ""


@dataclass(frozen=True, kw_only=True)
class PointTold:
    """What a shard says of a point beside its rows.

    Args:
        point: its number.
        state: what became of it.
        turn: of the sweep: each `resume` is one.
        environment: of its run; {} where it has no rows.
        error: why it is not done.
        trace: where it broke.
        shard: that says so.
    """

    point: int
    state: str
    turn: int
    environment: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    trace: str = ""
    shard: str = ""


class Unreadable(ValueError):
    """A shard is broken.

    Args:
        path: its folder, or the file in it.
        why: what reading it says.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} cannot be read: {why}; without its folder its points are missing, and run again")


def write_shard(
    folder: Path, chunk: int, turn: int, found: Sequence[tuple[int, PointOutcome]], more: Sequence[str] = ()
) -> str:
    """Write points of a chunk, whole.

    Args:
        folder: of all shards.
        chunk: its number.
        turn: of the sweep.
        found: points and what became of them.
        more: shards of the same chunk that this one takes the place of: theirs are in it, too.
    Returns:
        The shard's name.
    Raises:
        OSError: it cannot be written; nothing of it is there.
    """
    told = [told for name in more for told in read_told(folder / name)]
    told += [
        PointTold(
            point=point,
            state=each.state,
            turn=turn,
            environment=each.results.environment if each.results else {},
            error=each.error,
            trace=each.trace,
        )
        for point, each in found
    ]
    frames = {name: _frame(folder, name, found, more) for name in FRAMES}
    write = partial(_fill, told=told, frames=frames)
    number = len(list(folder.glob(f"{chunk:06d}-*")))
    while not appear(folder / (name := f"{chunk:06d}-{number:04d}"), write):
        number += 1
    return name


def read_told(shard: Path) -> list[PointTold]:
    """What a shard says of its points.

    Raises:
        OSError: it is not there.
    """
    said = json.loads((shard / TOLD).read_text(encoding="utf-8"))
    environments = said["environments"]
    return [
        PointTold(**each, environment={**environments[number], **own}, shard=shard.name)
        for each, number, own in zip(said["points"], said["of"], said["own"], strict=True)
    ]


@dataclass
class Shards:
    """The shards in a folder, read as they come.

    Args:
        folder: that holds them.
    """

    folder: Path
    told: dict[int, PointTold] = field(default_factory=dict)
    _read: dict[str, list[PointTold]] = field(default_factory=dict)

    def look(self, chunk: int | None = None) -> None:
        """Read what is new, of one chunk or of all; afterwards `told` has what became of each point.

        Raises:
            Unreadable: a shard is broken.
        """
        gone = {name for name in self._names(chunk) if name not in self._read and not self._reads(name)}
        if gone:  # into others, which are there
            self.look(chunk) if gone.isdisjoint(self._names(chunk)) else self._refuse(min(gone))

    def _names(self, chunk: int | None) -> list[str]:
        return sorted(path.name for path in self.folder.glob("[!.]*" if chunk is None else f"{chunk:06d}-*"))

    def _reads(self, name: str) -> bool:
        """Read a shard; whether it is there."""
        try:
            self._read[name] = read_told(self.folder / name)
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._refuse(name, str(error))
        for told in self._read[name]:
            if _comes_before(told, self.told.get(told.point)):
                self.told[told.point] = told
        return True

    def _refuse(self, name: str, why: str = f"it has no {TOLD}") -> NoReturn:
        raise Unreadable(self.folder / name, why)

    def is_settled(self, point: int, turn: int) -> bool:
        """Whether there is nothing to do for a point in this turn: it is done, or was tried in vain."""
        told = self.told.get(point)
        return told is not None and (told.state == DONE or (told.state != STOPPED and told.turn >= turn))


def _comes_before(new: PointTold, old: PointTold | None) -> bool:
    if old is None:
        return True
    ranks = [(told.state == DONE, told.turn if told.state != DONE else 0) for told in (new, old)]
    return ranks[0] > ranks[1]


def _frame(
    folder: Path, name: str, found: Iterable[tuple[int, PointOutcome]], more: Iterable[str]
) -> pd.DataFrame | None:
    """The rows of one frame; None where there are none."""
    parts = [pd.read_parquet(path) for each in more if (path := folder / each / f"{name}.parquet").is_file()]
    for point, outcome in found:
        rows = getattr(outcome.results, name, None)
        if rows is not None and len(rows):
            parts.append(rows.assign(**{POINT: point}))
    if not parts:
        return None
    rows = parts[0] if len(parts) == 1 else _together(parts)
    mixed = [column for column in _of_type(rows, object) if _is_mixed(rows[column])]
    return rows.assign(**{column: rows[column].map(str, na_action="ignore") for column in mixed}) if mixed else rows


def _together(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all; what are categories in each stay so."""
    found = [set(_of_type(part, "category")) for part in parts]
    words, texts = set.intersection(*found), set.union(*found)
    plain = [
        part.drop(columns=list(words)).astype(dict.fromkeys(own - words, object)) if texts else part
        for part, own in zip(parts, found, strict=True)
    ]
    rows = pd.concat(plain, ignore_index=True)
    return rows.assign(**{word: union_categoricals([part[word] for part in parts]) for word in words})


def _of_type(rows: pd.DataFrame, kind: object) -> list[str]:
    return [str(column) for column, own in zip(rows.columns, rows.dtypes, strict=True) if own == kind]


def _is_mixed(column: pd.Series) -> bool:
    """Whether a column has values of several kinds, for which Parquet has no type."""
    return infer_dtype(column, skipna=True).startswith("mixed")


def _fill(folder: Path, told: list[PointTold], frames: Mapping[str, pd.DataFrame | None]) -> None:
    for name, frame in frames.items():
        if frame is not None:
            frame.to_parquet(folder / f"{name}.parquet", index=False)
    (folder / TOLD).write_text(_json(told), encoding="utf-8")


OF_POINTS = ("header", "overrides", "others_share", "again")
"""What environments have that differs from point to point; of the rest few are different."""


def _json(told: list[PointTold]) -> str:
    environments: list[Any] = []
    said: dict[str, list[Any]] = {"points": [], "of": [], "own": []}
    for each in told:
        common = {key: value for key, value in each.environment.items() if key not in OF_POINTS}
        if common not in environments:
            environments.append(common)
        said["of"].append(environments.index(common))
        said["own"].append({key: each.environment[key] for key in OF_POINTS if key in each.environment})
        own = asdict(each)
        said["points"].append({key: own[key] for key in ("point", "state", "turn", "error", "trace")})
    return json.dumps({"environments": environments, **said}, default=str) + "\n"
