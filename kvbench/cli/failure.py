"""Jobs of a sweep that failed: each leaves a file that says why, whatever process ran it, and is a row of the whole."""

import contextlib
import json
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf

from kvbench.cli.terminal import complain
from kvbench.configuration.errors import UsageError
from kvbench.files import write_text

FOLDER = "failed"
LONGEST = 300
"""Letters of an error that a row holds; the file has all."""


@dataclass(frozen=True)
class Failure:
    """A job that failed.

    Args:
        job: its number in the sweep; of a folder that cannot be read, the folder's name.
        scenario: or experiment; "" where none was chosen.
        strategies: that it was to run.
        asked: what was asked for, and how to run it again; of a folder that cannot be read, nothing.
        error: one line.
        is_refusal: whether the input was bad, and nothing broke.
        trace: where it broke, for whoever mends it; "" of a refusal.
    """

    job: str
    scenario: str
    strategies: list[str]
    asked: dict[str, Any]
    error: str
    is_refusal: bool
    trace: str = ""

    @property
    def overrides(self) -> list[str]:
        """Of this job."""
        return list(self.asked.get("overrides", []))

    @property
    def outcome(self) -> str:
        """What stands in the column of that name."""
        return f"failed: {self.error if len(self.error) <= LONGEST else f'{self.error[: LONGEST - 1]}…'}"


def failure_of(
    error: BaseException, hydra_config: HydraConf, strategies: Sequence[object], asked: dict[str, Any]
) -> Failure:
    """What is to be kept of a job's error."""
    is_usage = isinstance(error, UsageError)
    choices = hydra_config.runtime.choices
    return Failure(
        job=str(hydra_config.job.num),
        scenario=str(choices.get("scenario") or choices.get("experiment") or ""),
        strategies=list(map(str, strategies)),
        asked=asked,
        error=" ".join((str(error) if is_usage else f"{type(error).__name__}: {error}").split()),
        is_refusal=isinstance(error, UsageError) and error.status == UsageError.status,
        trace="" if is_usage else "".join(traceback.format_exception(error)),
    )


def note(sweep: Path, failure: Failure) -> None:
    """Say at once that a job failed, and keep it in the sweep's folder."""
    complain(f"job {' '.join(failure.overrides)}: {failure.error}")
    with contextlib.suppress(OSError):  # it is said already; where the disk is full, the sweep will say so too
        write_text(sweep / FOLDER / f"{failure.job}.json", json.dumps(asdict(failure), indent=2) + "\n")


def noted(sweep: Path) -> list[Failure]:
    """The failures that jobs left in a sweep's folder."""
    return [Failure(**json.loads(path.read_text(encoding="utf-8"))) for path in (sweep / FOLDER).glob("*.json")]
