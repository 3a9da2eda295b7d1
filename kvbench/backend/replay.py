"""The measured backend on recorded K, V and queries."""

from kvbench.backend.inputs import RecordedInputs, Recording
from kvbench.backend.measured import Measured
from kvbench.model.geometry import KVGeometry


class Replay(Measured):
    """Carry plans out on real tensors, filled with recorded K and V, and time them.

    A token is the recording's at its position in the sequence, whichever request it is of, and after a preemption
    again; see `RecordedInputs`.

    Args:
        recording: in the geometry's heads, head_dim and dtype.
        geometry: as `Measured`.
        device: as `Measured`.
        attend: as `Measured`; with the recording's queries.
        seed: as `Measured`.
        num_rows: as `Measured`; rows are alike.
    Raises:
        ValueError: as `Measured`.
    """

    def __init__(
        self,
        *,
        recording: Recording,
        geometry: KVGeometry,
        device: str = "auto",
        attend: bool = True,
        seed: int = 0,
        num_rows: int = 1,
    ) -> None:
        super().__init__(geometry=geometry, device=device, attend=attend, seed=seed, num_rows=num_rows)
        self.recording = recording

    def _inputs_of(self, max_append_tokens: int) -> RecordedInputs:
        return RecordedInputs(
            self.recording, self.geometry, self.num_rows, max_append_tokens, self.device, self._sequences
        )

    def describe(self) -> dict[str, object]:
        """As `Measured.describe`, and what K and V are."""
        return super().describe() | {"data": self.recording.about}
