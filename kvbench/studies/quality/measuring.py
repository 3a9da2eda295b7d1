"""Measuring all cells: which rows there are here, what determines them, and what was measured before."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import kvbench
from kvbench.charts.text import duration
from kvbench.studies.base import Setting
from kvbench.studies.quality.cells import Cell, CellFolder, CellResult, code_fingerprint, fingerprint_of_ids
from kvbench.studies.quality.contenders import TRANSFORMERS, Contender
from kvbench.studies.quality.subject import Subject

if TYPE_CHECKING:
    from kvbench.integrations.models import Loaded

VERSIONS = ("torch", "transformers")
CODE = ("backend", "integrations", "ledger", "model", "plan", "quality", "strategy", "studies/quality")
"""Parts of the package that determine what is measured."""


def common(loaded: "Loaded", subject: Subject, setting: Setting, parameters: Mapping[str, object]) -> dict[str, object]:
    """What determines every cell.

    Args:
        loaded: the model.
        subject: the text.
        setting: of the run; a budget that was not given is no part of it.
        parameters: of the experiment.
    """
    from kvbench.backend.device import device_name
    from kvbench.quality.model.fingerprint import weights_fingerprint

    return {
        "model": loaded.name,
        "weights": weights_fingerprint(loaded.model),
        "dtype": str(loaded.model.dtype),
        "device": device_name(loaded.model.device),
        "text": fingerprint_of_ids((*subject.text.prefix, *subject.text.ids)),
        "seed": setting.seed,
        "budget_bytes": setting.budget_bytes if setting.is_budget_given else None,
        "kvbench": kvbench.__version__,
        "code": code_fingerprint(Path(kvbench.__file__).parent, CODE),
        **parameters,
        **{name: version(name) for name in VERSIONS},
    }


def available(rows: list[Contender], loaded: "Loaded") -> tuple[list[Contender], list[str]]:
    """The rows that can be measured here, and why others cannot."""
    from kvbench.integrations.peers import why_not

    present, missing = [], []
    for row in rows:
        reason = why_not(row.holder, loaded.model.config) if row.kind == TRANSFORMERS else None
        if reason is None:
            present.append(row)
        else:
            missing.append(f"Left out: {' '.join(reason.split()).removesuffix('.')}.")
    return present, missing


def measured(cells: list[Cell], kept: CellFolder, subject: Subject, setting: Setting) -> dict[Cell, CellResult]:
    """All cells, those of earlier runs first; what the others take is told before they are begun."""
    found = {cell: before for cell in cells if (before := kept.read(cell)) is not None}
    for cell in found:
        tell(setting, cell.contender.title, cell.num_fed)
    left = [cell for cell in cells if cell not in found]
    if left and setting.say is not None:
        setting.say(
            f"{len(found)} of {len(cells)} cells are there from before; the other {len(left)} take about "
            f"{duration(subject.seconds(left))} at the full cache's speed, and what caches do comes on top. Each is "
            "kept when it is finished: after an interruption, run the same again."
        )
    try:
        for cell in left:
            found[cell] = kept.write(cell, subject.measure(cell))
    except KeyboardInterrupt:
        if setting.say is not None:
            setting.say(f"{len(found)} of {len(cells)} cells are kept; the same again goes on from there")
        raise
    return {cell: found[cell] for cell in cells}


def tell(setting: Setting, title: str, num_tokens: int) -> None:
    """Move the progress bar."""
    if setting.on_iteration is not None:
        setting.on_iteration(title, 0, num_tokens)


def earlier(found: Mapping[Cell, CellResult]) -> list[str]:
    """How many cells earlier runs measured, and when."""
    times = sorted(each.measured_at for each in found.values() if each.is_earlier)
    if not times:
        return []
    when = times[0] if times[0] == times[-1] else f"between {times[0]} and {times[-1]}"
    return [
        f"{len(times)} of {len(found)} cells were measured by earlier runs of the same ({when}), their tokens a second "
        "too; experiment.resume=false measures all anew."
    ]
