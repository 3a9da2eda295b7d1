"""The runs of a file that a benchmark wrote."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kvbench.calibration.validation.exports.aiperf import aiperf_run, aiperf_table
from kvbench.calibration.validation.exports.bench import bench_run, is_bench
from kvbench.calibration.validation.exports.export import Export
from kvbench.calibration.validation.exports.guidellm import guidellm_runs
from kvbench.calibration.validation.recognised import AIPERF, AIPERF_TABLE, BENCH, GUIDELLM, read_documents, read_text

EXPORTS = (BENCH, GUIDELLM, AIPERF, AIPERF_TABLE)


def runs_of(path: Path, form: str) -> list[Export]:
    """The runs of a file.

    Args:
        path: the file.
        form: what it is, of `recognised.FORMS`.
    Raises:
        ValueError: it is broken; the message says in which document.
    """
    if form == AIPERF_TABLE:
        return _read(path, "", lambda: [aiperf_table(read_text(path))])
    documents, found = read_documents(path), []
    for number, document in enumerate(documents, 1):
        where = f", document {number}" if len(documents) > 1 else ""
        found += _read(path, where, partial(_of_document, form, number, document))
    return found


def _of_document(form: str, number: int, document: Any) -> list[Export]:
    if form == GUIDELLM:
        return list(guidellm_runs(document))
    if form == AIPERF:
        return [aiperf_run(document)]
    if not is_bench(document):
        raise ValueError("it is no run as that before it")
    return [bench_run(f"run {number}", document)]


def _read(path: Path, where: str, runs: Callable[[], list[Export]]) -> list[Export]:
    try:
        return runs()
    except (ValueError, TypeError, AttributeError, KeyError) as error:  # of a document of another shape than its kind's
        said = error if isinstance(error, ValueError) else f"it has another shape than is read here: {error}"
        raise ValueError(f"{path}{where}: {said}") from error
