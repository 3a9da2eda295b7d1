"""How long a run will take, about, before anything was run."""

from collections.abc import Sequence

from kvbench.workload.request import Session

STEP_S = 3e-4
"""Of the host's for a step, whatever it does."""
DECODE_PASSES = 2.0
"""Times that a decode step takes the copying of all that it reads."""
PREFILL_PASSES = 0.1
"""The same for each token of a prefill, whose tokens are read for together."""


def seconds_of(sessions: Sequence[Session], slot_bytes: int, bandwidth_bytes_per_s: float | None) -> float:
    """Seconds that one strategy takes for all sessions, to within a few times.

    Args:
        sessions: what is run.
        slot_bytes: of a token.
        bandwidth_bytes_per_s: of copying on the machine; None where nothing is carried out.
    """
    num_steps, passed_tokens = 0, 0.0
    for session in sessions:
        held = 0
        for number, turn in enumerate(session.turns):
            prompt, decoded = session.num_prefill_tokens(number), turn.num_decode_steps
            passed_tokens += PREFILL_PASSES * prompt * (held + prompt / 2)
            held += prompt
            passed_tokens += DECODE_PASSES * decoded * (held + decoded / 2)
            held += decoded
            num_steps += 1 + decoded
    moved_s = passed_tokens * slot_bytes / bandwidth_bytes_per_s if bandwidth_bytes_per_s else 0.0
    return num_steps * STEP_S + moved_s
