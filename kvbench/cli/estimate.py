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
        for turn in session.turns:
            prompt, output = turn.num_append_tokens, turn.num_decode_tokens
            passed_tokens += PREFILL_PASSES * prompt * (held + prompt / 2)
            held += prompt
            passed_tokens += DECODE_PASSES * output * (held + output / 2)
            held += output
            num_steps += 1 + output
    moved_s = passed_tokens * slot_bytes / bandwidth_bytes_per_s if bandwidth_bytes_per_s else 0.0
    return num_steps * STEP_S + moved_s
