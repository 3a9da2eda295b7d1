"""What became of deployments, kept in a folder as it comes: a line a row, in a file a worker, so that none is lost."""

import hashlib
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kvbench.decide.space import Deployment

ENDING = ".jsonl"


class Became(NamedTuple):
    """What became of a deployment.

    Args:
        deployment: a value by key.
        row: of a summary, without what is empty; {} where it could not be served.
        replays: the figures of each replay.
        error: why it could not be served; "" where it was.
    """

    deployment: Deployment
    row: Mapping[str, Any]
    replays: Sequence[Mapping[str, float]] = ()
    error: str = ""


def identity(deployment: Deployment) -> str:
    """What equal deployments share, and no others."""
    return hashlib.sha256(json.dumps(dict(deployment), sort_keys=True).encode()).hexdigest()[:24]


@dataclass
class KeptRows:
    """Rows in a folder, by stage and deployment; the first of each stands.

    Args:
        folder: of the files; it is there.
    """

    folder: Path
    _found: dict[tuple[str, str], Became] = field(default_factory=dict)
    _read: dict[str, int] = field(default_factory=dict)
    _own: Path | None = None

    def look(self) -> None:
        """Read what others have written since the last look; a line that is not whole is none yet."""
        for path in sorted(self.folder.glob(f"*{ENDING}")):
            at = self._read.get(path.name, 0)
            with path.open("rb") as file:
                file.seek(at)
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[path.name] = at + len(whole)
            for line in whole.splitlines():
                told = json.loads(line)
                self._found.setdefault((told.pop("stage"), told.pop("id")), Became(**told))

    def get(self, stage: str, deployment: Deployment) -> Became | None:
        """What became of a deployment; None: nobody knows yet."""
        return self._found.get((stage, identity(deployment)))

    def of(self, stage: str) -> list[Became]:
        """What is known, in the order in which it came to be known here."""
        return [became for (own, _), became in self._found.items() if own == stage]

    def add(self, stage: str, became: Became) -> Became:
        """Write a row, so that it lasts; what is there already stands.

        Raises:
            OSError: it cannot be written.
        """
        key = stage, identity(became.deployment)
        if key in self._found:
            return self._found[key]
        row = {name: value for name, value in became.row.items() if not _is_empty(value)}
        told = became._replace(row=row, deployment=dict(became.deployment), replays=list(became.replays))
        line = json.dumps({"stage": stage, "id": key[1], **told._asdict()}, default=_plain)
        if self._own is None:
            self._own = self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}{ENDING}"
        try:
            with self._own.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except BaseException:  # a line may be there in part: nothing is written behind it
            self._own = None
            raise
        self._read[self._own.name] = self._read.get(self._own.name, 0) + len(line.encode()) + 1
        self._found[key] = told
        return told


def _is_empty(value: object) -> bool:
    return value is None or value != value


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    return value.item()
