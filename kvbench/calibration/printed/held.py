"""Printed lines held against what rules say: one by one, and how many agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from kvbench.calibration.capacity_rows import GIB, Figure, Row, Told, told_of
from kvbench.calibration.printed.flags import from_flags
from kvbench.calibration.printed.named import accelerator_of, model_of
from kvbench.calibration.printed.rows import NO
from kvbench.calibration.public_shapes import public_shape
from kvbench.model.accelerator import Accelerator
from kvbench.model.groups import FULL, WINDOW, LayerGroup
from kvbench.model.model import Model

MOST_FLAG_ERROR, MOST_SHARE = 0.15, 0.02
"""Of GiB from the flags: of what was printed, or of the accelerator's memory."""
ANOTHER_RANK, NOT_STATED = "another rank", "flag not stated"


@dataclass(frozen=True, kw_only=True)
class HeldLine:
    """A printed line beside what is said here.

    Args:
        row: as printed, columns by name.
        model: the name of the model at hand that it is taken for; None: none.
        told: what its printed GiB become; None: that cannot be said.
        why_not: why it cannot.
        flags_bytes: for the cache, from configuration and flags; None: that cannot be said.
        missing: what is missing for that.
        total_bytes: of its accelerator; 0 where that is not known.
    """

    row: Row
    model: str | None
    told: Told | None
    why_not: str
    flags_bytes: int | None
    missing: str
    total_bytes: int

    @property
    def name(self) -> str:
        """Its id in the table."""
        return self.row["id"]

    @property
    def figures(self) -> list[Figure]:
        """Blocks, tokens and concurrency that it prints, beside ours."""
        return self.told.figures(self.row) if self.told else []

    @property
    def error(self) -> float | None:
        """The largest difference from what was printed, as a share of it, beyond what its digits hide."""
        return max((figure.error for figure in self.figures), key=abs, default=None)

    @property
    def is_evidence(self) -> bool:
        """Whether it counts, given its cache: its model was not inferred from the bytes, and it prints both."""
        return self.row["circular"] == NO and bool(self.row["available_kv_gib"] and self.row["num_tokens"])

    @property
    def agrees(self) -> bool:
        """Whether all that its cache becomes is as printed: within 0.3 %, or half of the last digit of the GiB."""
        return bool(self.figures) and all(figure.is_within for figure in self.figures)

    @property
    def excuse(self) -> str | None:
        """What of the line itself explains that it disagrees."""
        if self.agrees or self.told is None:
            return None
        if "smallest over" in f"{self.row['doubt']} {self.row['explanation']}":
            return ANOTHER_RANK
        has_windows = any(group.kind == WINDOW for group in self.told.rank.groups)
        return NOT_STATED if has_windows and not self.row["max_num_batched_tokens"] else None

    @property
    def flags_error(self) -> float | None:
        """The difference of the GiB from the flags from those printed, as a share of these."""
        printed = float(self.row["available_kv_gib"] or 0)
        return self.flags_bytes / GIB / printed - 1 if self.flags_bytes is not None and printed else None

    @property
    def counts_by_flags(self) -> bool:
        """Whether the GiB from the flags can be judged: they were printed, and the model was not inferred."""
        return self.flags_error is not None and self.row["circular"] != "yes"

    @property
    def flags_agree(self) -> bool:
        """Whether the GiB from the flags are near those printed."""
        if self.flags_error is None:
            return False
        share = abs(self.flags_error * float(self.row["available_kv_gib"])) * GIB / self.total_bytes
        return abs(self.flags_error) <= MOST_FLAG_ERROR or share <= MOST_SHARE


def held(rows: Sequence[Row], models: Mapping[str, Model], accelerators: Mapping[str, Accelerator]) -> list[HeldLine]:
    """Each line beside what is said here.

    Args:
        rows: as printed.
        models: those at hand, by name.
        accelerators: the same.
    """
    return [_held(row, models, accelerators) for row in rows]


def _held(row: Row, models: Mapping[str, Model], accelerators: Mapping[str, Accelerator]) -> HeldLine:
    name, model = model_of(row, models) or (None, None)
    hardware = accelerator_of(row, accelerators)
    told, why_not, flags_bytes, missing = None, "", None, ""
    try:
        told = _told(row, model)
    except ValueError as error:
        why_not = str(error)
    try:
        flags_bytes = from_flags(row, model, hardware)
    except ValueError as error:
        missing = str(error)
    return HeldLine(
        row=row,
        model=name,
        told=told,
        why_not=why_not,
        flags_bytes=flags_bytes,
        missing=missing,
        total_bytes=hardware.memory_bytes if hardware else 0,
    )


def _told(row: Row, model: Model | None) -> Told:
    """By its configuration, by its name, or, of layers that are alike, by the bytes a token that the table states."""
    size = round(float(row["config_bytes_per_token"] or 0))
    if model or public_shape(row["model"]) or not size or row["kind"] not in ("dense", "moe", "mla"):
        return told_of(row, model)
    cell = LayerGroup(kind=FULL, layers=(0,), num_heads=1, num_kv_heads=1, key_dim=size // 2 - 1, value_dim=1)
    alone = {"tensor_parallel": "1", "pipeline_parallel": "1", "kv_dtype": ""}
    return told_of({**row, **alone}, Model(name="stated", groups=(cell,), num_layers=1))


@dataclass(frozen=True)
class Agreement:
    """How many lines agree.

    Args:
        lines: all, one by one.
    """

    lines: Sequence[HeldLine]

    @property
    def judged(self) -> list[HeldLine]:
        """Those that count, given their caches, and of which something can be said."""
        return [each for each in self.lines if each.is_evidence and each.error is not None]

    @property
    def not_told(self) -> list[HeldLine]:
        """Those that would count, and of which nothing can be said."""
        return [each for each in self.lines if each.is_evidence and each.error is None]

    @property
    def excused(self) -> list[HeldLine]:
        """Those that count and disagree, and say why themselves."""
        return [each for each in self.judged if each.excuse]

    @property
    def off(self) -> list[HeldLine]:
        """Those that count and disagree, and do not say why."""
        return [each for each in self.judged if not each.agrees and not each.excuse]

    @property
    def of_flags(self) -> list[HeldLine]:
        """Those whose GiB can be said from configuration and flags, and were printed."""
        return [each for each in self.lines if each.counts_by_flags]

    @property
    def flags_off(self) -> list[HeldLine]:
        """Of these, those that are not near."""
        return [each for each in self.of_flags if not each.flags_agree]

    @property
    def sentence(self) -> str:
        """Counts and errors, in a line."""
        judged, near = self.judged, self.of_flags
        agree = sum(each.agrees for each in judged)
        excused = f", {len(self.excused)} excused" if self.excused else ""
        unknown = f", {len(self.not_told)} not told" if self.not_told else ""
        return (
            f"{len(self.lines)} lines. Given the cache: {agree} of {len(judged)} agree"
            f"{_errors([each.error for each in judged])}{excused}{unknown}. "
            f"From flags: {len(near) - len(self.flags_off)} of {len(near)} near"
            f"{_errors([each.flags_error for each in near])}."
        )


def _errors(errors: Sequence[float | None]) -> str:
    sizes = [abs(error) for error in errors if error is not None]
    return f" (median {_percent(median(sizes))}, largest {_percent(max(sizes))})" if sizes else ""


def _percent(share: float) -> str:
    return f"{100 * share:,.2f} %"
