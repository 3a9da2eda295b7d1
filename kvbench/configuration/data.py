"""Recorded K and V that steps append instead of random numbers: whether a run has them, and which."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvbench.configuration.errors import UsageError, refusing
from kvbench.configuration.targets import target_of
from kvbench.model.geometry import KVGeometry
from kvbench.workload.request import Session

if TYPE_CHECKING:
    from kvbench.backend.inputs import Recording

MEASURED = "kvbench.backend.measured.Measured"


def check_data(config: Mapping[str, Any]) -> None:
    """Check the setting alone, before any file is read.

    Raises:
        UsageError: it is no path, or the backend fills no tensors.
    """
    data, target = config.get("data"), target_of(config["backend"])
    if data is None:
        return
    if not isinstance(data, str):
        raise UsageError(f"data is a path, or null, got {data!r}")
    if target != MEASURED:
        what = target.rpartition(".")[2].lower()
        raise UsageError(
            f"data={data} fills tensors, and backend={what} makes none: use backend=measured, or data=null"
        )


def recording_of(config: Mapping[str, Any], geometry: KVGeometry, sessions: Sequence[Session]) -> "Recording | None":
    """Read what steps append, as far as the longest request goes; None where they append random numbers.

    Raises:
        UsageError: the file is missing, broken or of another model.
    """
    if config["data"] is None:
        return None
    # Imported here, so that lists come without torch.
    from kvbench.backend.inputs import Recording
    from kvbench.quality.recorded import read

    longest = max(session.num_tokens for session in sessions)
    with refusing("data: "):
        sample = read(Path(config["data"]).expanduser(), geometry, longest, config["seed"])
    about = f"appended are {sample.about}"
    if sample.num_tokens < longest:
        about += f"; its {sample.num_tokens:,} tokens begin again where a sequence is longer (at most {longest:,})"
    if sample.num_layers < geometry.num_layers:
        about += (
            f"; it has {sample.num_layers} of {geometry.num_layers} layers: layer i gets its layer i modulo "
            f"{sample.num_layers}"
        )
    return Recording(sample.keys, sample.values, sample.queries, about)
