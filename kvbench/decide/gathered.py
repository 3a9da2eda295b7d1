"""What a sweep's shards hold as one: a summary that fits into memory, and rows that need not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kvbench.decide.manifest import Combination, Manifest
from kvbench.decide.shards import DONE, POINT, STOPPED, PointTold, Shards, Unreadable
from kvbench.decide.sweep import FRAMES, OWN_COLUMNS, swept_values
from kvbench.results.results import Results
from kvbench.results.summary import sessions_frame

KEPT = (DONE, STOPPED)
"""States of points that have rows."""
LONG = ("requests", "steps", "timeline", "replicas")
"""Frames whose rows may be more than memory holds."""
PEAKS = ["strategy", "allocated_bytes"]
WORDS = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class Gathered:
    """A sweep's rows.

    Args:
        manifest: the sweep's.
        shards: looked at.
    """

    manifest: Manifest
    shards: Shards

    @cached_property
    def told(self) -> list[PointTold]:
        """What became of each point that was run, in order."""
        return [self.shards.told[point] for point in sorted(self.shards.told)]

    @cached_property
    def with_rows(self) -> list[PointTold]:
        """Of these, those that have rows."""
        return [told for told in self.told if told.state in KEPT]

    @property
    def num_missing(self) -> int:
        """Points that were never run."""
        return len(self.manifest) - len(self.told)

    def combination(self, told: PointTold) -> Combination:
        """Which point it is."""
        return self.manifest.combination(told.point)

    def results(self) -> Results:
        """The summary and what judges its figures; of steps, what each strategy held at most.

        Raises:
            FileNotFoundError: a shard went into another meanwhile: look again.
        """
        summary, steps = (self._short(name) for name in ("summary", "steps"))
        return Results(
            summary=pd.DataFrame(columns=list(FRAMES["summary"])) if summary is None else summary,
            steps=pd.DataFrame(columns=list(FRAMES["steps"])) if steps is None else steps,
            replays=self._short("replays"),
        )

    def writers(self) -> dict[str, Callable[[Path], object]]:
        """What writes each of the long frames as one Parquet file, a chunk at a time; see `Results.save`."""
        found: dict[str, Callable[[Path], object]] = {
            name: partial(self._write, name=name) for name in LONG if self._files(name) or FRAMES.get(name)
        }
        return found | {"sessions": partial(self._write, name="requests", as_told=sessions_frame)}

    @cached_property
    def _points(self) -> np.ndarray:
        return np.array([told.point for told in self.with_rows], dtype=np.int64)

    @cached_property
    def _of_shards(self) -> dict[str, list[int]]:
        """The points whose rows are a shard's, by its name."""
        found: dict[str, list[int]] = {}
        for told in self.with_rows:
            found.setdefault(told.shard, []).append(told.point)
        return found

    @cached_property
    def _values(self) -> dict[str, list[Any]]:
        """The values of what was swept, of each point that has rows."""
        found = [swept_values(self.combination(told).lines, self.manifest.swept) for told in self.with_rows]
        return {key: [each[key] for each in found] for key in self.manifest.swept if key not in OWN_COLUMNS}

    @cached_property
    def _as_told(self) -> dict[str, Any]:
        """What tells rows of a long frame apart, of each point that has rows: numbers, or words as categories."""
        told = {"scenario": [each.environment.get("scenario") for each in self.with_rows]} | self._values
        if not any(told["scenario"]):  # a study's rows name their own
            del told["scenario"]
        are_numbers = {key: all(isinstance(value, int | float) for value in column) for key, column in told.items()}
        return {
            key: np.array(column) if are_numbers[key] else pd.Categorical([str(value) for value in column])
            for key, column in told.items()
        }

    def _files(self, name: str) -> list[Path]:
        """The files of a frame, in the order of points."""
        paths = (self.shards.folder / shard / f"{name}.parquet" for shard in self._of_shards)
        return [path for path in paths if path.is_file()]

    def _short(self, name: str) -> pd.DataFrame | None:
        """A frame in memory; of steps their peaks."""
        columns = [*PEAKS, POINT] if name == "steps" else None
        parts = [self._own(_read(path, columns).to_pandas(), path) for path in self._files(name)]
        if not parts:
            return None
        if name == "steps":
            peaks = [part.astype({PEAKS[0]: str}).groupby(PEAKS[0], as_index=False)[PEAKS[1]].max() for part in parts]
            return pd.DataFrame(pd.concat(peaks, ignore_index=True))
        rows = pd.concat(parts, ignore_index=True).sort_values(POINT, kind="stable", ignore_index=True)
        at = np.searchsorted(self._points, rows.pop(POINT).to_numpy())
        values = {key: pd.Series(column)[at].to_numpy() for key, column in self._values.items()}
        return rows.assign(**values)

    def _own(self, rows: pd.DataFrame, path: Path) -> pd.DataFrame:
        """The rows of the points that are this shard's."""
        return rows[rows[POINT].isin(self._of_shards[path.parent.name])]

    def _chunks(self, name: str) -> Iterator[pd.DataFrame]:
        """A long frame's rows, a chunk of points at a time, all with the same columns."""
        files = self._files(name)
        schemas = [_plain(pq.read_schema(path)) for path in files]
        whole = pa.unify_schemas(schemas, promote_options="permissive") if files else None
        for _, own in groupby(files, key=lambda path: path.parent.name.partition("-")[0]):
            parts = []
            for path in own:
                table = _cast(_read(path), whole)
                parts.append(self._own(table.to_pandas(), path))
            rows = pd.concat(parts, ignore_index=True).sort_values(POINT, kind="stable", ignore_index=True)
            at = np.searchsorted(self._points, rows.pop(POINT).to_numpy())
            missing = {key: column[at] for key, column in self._as_told.items() if key not in rows or key != "scenario"}
            yield rows.assign(**missing)

    def _write(
        self, path: Path, *, name: str, as_told: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows
    ) -> None:
        """Write a frame, or another of its rows, a chunk of points at a time."""
        writer, schema = None, None
        try:
            for rows in self._chunks(name):
                table = pa.Table.from_pandas(as_told(rows), preserve_index=False)
                schema = _plain(table.schema, as_words=True) if schema is None else schema
                writer = pq.ParquetWriter(path, schema) if writer is None else writer
                writer.write_table(_cast(table, schema))
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            as_told(pd.DataFrame(columns=list(FRAMES[name]))).to_parquet(path, index=False)


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise Unreadable(path, str(error)) from error


def _plain(schema: pa.Schema, *, as_words: bool = False) -> pa.Schema:
    """A schema whose words are texts, or all categories of one kind, as are columns of which nothing is said."""
    words = WORDS if as_words else pa.string()
    return pa.schema([pa.field(each.name, words if _is_words(each.type, as_words) else each.type) for each in schema])


def _is_words(kind: pa.DataType, or_nothing: bool) -> bool:
    texts = pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(texts or (or_nothing and pa.types.is_null(kind)))


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with a schema's columns; those that it lacks are empty."""
    columns = []
    for each in schema:
        if each.name not in table.column_names or pa.types.is_null(table[each.name].type):
            columns.append(pa.nulls(len(table), each.type))
            continue
        column = table[each.name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        columns.append(column.dictionary_encode() if each.type == WORDS else column.cast(each.type, safe=False))
    return pa.Table.from_arrays(columns, schema=schema)
