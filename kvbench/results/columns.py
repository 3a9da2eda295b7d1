"""What a column is, and those of the raw rows: steps, requests and sessions."""

from dataclasses import dataclass

LIMITS = ("arrivals", "batch", "memory", "pool", "computing")
"""What the next request waits for, in the order in which it is asked."""

PERCENT = 90
"""Level of confidence of every interval."""

TAILS = (0.5 - PERCENT / 200, 0.5 + PERCENT / 200)
"""Where the ends of an interval lie among values that are as likely."""

FROM = "interval_from"
"""The column that says what a row's intervals come from."""

COMPLETED, UNREACHED = "completed", "unreached"
"""Outcomes of requests beside those of the ledger and too_long; one is unreached whose session ended before it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column's unit and meaning.

    Args:
        unit: such as bytes, tokens, s, µs; "" where it has none.
        meaning: one sentence; a metric's is its formula.
        label: what an axis says, without the unit.
        has_interval: whether the ends of its interval stand beside it, see `intervals`.
    """

    unit: str
    meaning: str
    label: str = ""
    has_interval: bool = False

    def axis(self, unit: str | None = None) -> str:
        """The text of an axis: label and unit (another unit, where the values were scaled)."""
        shown = self.unit if unit is None else unit
        return f"{self.label} ({shown})" if shown else self.label


def ends(column: str) -> tuple[str, str]:
    """The columns of the ends of a figure's interval."""
    return f"{column}_low", f"{column}_high"


STEPS: dict[str, Column] = {
    "repetition": Column("", "repetition, from 0; warm-up comes first"),
    "warmup": Column("", "whether the repetition is warm-up, kept but in no summary"),
    "strategy": Column("", "the strategy's name"),
    "session": Column("", "the session's number in the scenario, from 0"),
    "turn": Column("", "the session's turn, from 0; a session and a turn are a request"),
    "iteration": Column("", "pass over all live requests, from 0; each request has one step in it"),
    "phase": Column(
        "",
        "admit, prefill, fork (the prompt taken over from another sample of it), decode, recompute (prefill again "
        "after a preemption), relieve (memory given back), finish, or load (an iteration's end that waits for what it "
        "loads from tiers below the device, on behalf of all its requests)",
    ),
    "num_tokens": Column("tokens", "tokens that the step appended", "Tokens a step"),
    "prompt_tokens": Column(
        "tokens",
        "of these, tokens of the request's prompt: a prefill also writes the last token of the answer before",
    ),
    "output_tokens": Column("tokens", "output tokens that were out with the step's iteration: 0 or 1"),
    "context_tokens": Column("tokens", "tokens that the step's attention reads", "Context"),
    "capacity_tokens": Column("tokens", "slots allocated to the session on the device after the append", "Capacity"),
    "seen_tokens": Column("tokens", "tokens of the session appended so far, at the step's end", "Seen"),
    "kept_tokens": Column("tokens", "tokens of the session that attention will read, at the step's end", "Kept"),
    "altered_tokens": Column(
        "tokens", "tokens of the session so far that were evicted, moved out of attention's sight, or rounded"
    ),
    "request_bytes": Column("bytes", "device bytes allocated to the session after the append; shared blocks in full"),
    "used_bytes": Column(
        "bytes", "device bytes of slots that hold tokens after the append, all sessions; shared ones once", "Used"
    ),
    "allocated_bytes": Column(
        "bytes",
        "device bytes of allocated slots (of a pool, the blocks handed out) after the append, all sessions",
        "Allocated",
    ),
    "workspace_bytes": Column(
        "bytes", "device bytes of the staging buffers that slots in blocks, few bits or slower tiers are read through"
    ),
    "host_bytes": Column("bytes", "bytes allocated in the host's memory, as a tier of its own, after the append"),
    "disk_bytes": Column("bytes", "bytes allocated in files after the append"),
    "remote_bytes": Column("bytes", "bytes of blocks kept on a remote store after the append"),
    "reserved_bytes": Column("bytes", "allocated slots that tokens still to come will fill, all sessions"),
    "waste_bytes": Column("bytes", "allocated slots that no token will ever fill (internal waste), all sessions"),
    "requested_bytes": Column("bytes", "bytes of the step's new allocations"),
    "transient_bytes": Column(
        "bytes",
        "the most device bytes held during the step, less those held after the append; 0 where no more than before it",
    ),
    "num_resizes": Column("", "storages that the step replaced by others"),
    "copied_bytes": Column("bytes", "live bytes that the step copied: resizes, evictions, shared blocks made private"),
    "moved_bytes": Column("bytes", "bytes that the step wrote to another area: another tier, format or layout"),
    "num_live": Column("", "requests computed in the step's iteration; a session between its turns is not among them"),
    "limit": Column(
        "",
        "what the request at the head of the queue waits for: arrivals (there is none), batch (max_concurrency), "
        "memory, pool (a pool smaller than the budget) or computing (only for the steps at hand)",
    ),
    "idle_us": Column("µs", "time skipped before the step because nothing was ready to run"),
    "plan_us": Column("µs", "host time of the strategy's decision and the ledger's booking"),
    "reserve_us": Column("µs", "time of allocating, copying and freeing"),
    "append_us": Column("µs", "time of writing the new tokens"),
    "move_us": Column("µs", "time of evicting, moving to another area and sharing"),
    "attend_us": Column("µs", "time of attention over the live cache"),
    "model_us": Column("µs", "time of the model's other parts, weights and projections; 0 where scope is cache"),
    "host_us": Column("µs", "host time of the whole step"),
    "step_us": Column(
        "µs",
        "the step's time: the larger of host_us and reserve_us + append_us + move_us + attend_us + model_us",
        "Step time",
    ),
    "end_s": Column("s", "time since the repetition's start at the step's end, idle time included", "Time"),
}

DERIVED = ("warmup", "step_us", "end_s")
"""Columns of steps that follow from others; all else is recorded, times as whole nanoseconds."""

REQUESTS: dict[str, Column] = {
    "repetition": STEPS["repetition"],
    "warmup": STEPS["warmup"],
    "strategy": STEPS["strategy"],
    "session": STEPS["session"],
    "turn": STEPS["turn"],
    "outcome": Column(
        "",
        "completed, too_long (longer than the strategy holds), out_of_memory (device), out_of_host_memory, disk_full, "
        "or unreached: the session ended before this turn",
    ),
    "arrival_s": Column("s", "arrival, after the repetition's start; of a later turn: end of the one before + think"),
    "prompt_tokens": Column("tokens", "tokens of the prompt"),
    "output_tokens": Column("tokens", "tokens of the answer; the prefill gives the first, a decode step each other"),
    "held_tokens": Column("tokens", "tokens that the session's cache had been given at the end"),
    "hit_tokens": Column(
        "tokens", "tokens of the prompt that were found in the prefix cache as it was first admitted, and not computed"
    ),
    "host_tokens": Column("tokens", "tokens of the prompt that lay in the host's memory then, and were loaded"),
    "disk_tokens": Column("tokens", "the same on the disk"),
    "remote_tokens": Column("tokens", "the same on the remote store"),
    "load_wait_s": Column(
        "s",
        "from the begin of the iteration that admitted it until the last block that it loads was on the device; after "
        "a preemption again, summed",
    ),
    "num_preemptions": Column(
        "", "times that the session's cache was given up, before or in the turn, to compute it again"
    ),
    "peak_bytes": Column("bytes", "the most device bytes allocated to the session after a step of the turn"),
    "queue_s": Column("s", "start of the first iteration that computes it - arrival", "Queueing"),
    "ttft_s": Column("s", "time to first token: end of the iteration that ends the prefill - arrival", "TTFT"),
    "tpot_s": Column("s", "time per output token: (last - first) / (n - 1)", "TPOT"),
    "latency_s": Column("s", "end of the last step's iteration - arrival", "Latency"),
}

SESSIONS: dict[str, Column] = {
    "repetition": STEPS["repetition"],
    "warmup": STEPS["warmup"],
    "strategy": STEPS["strategy"],
    "session": STEPS["session"],
    "outcome": Column("", "completed, or the outcome of the first request that was not"),
    "arrival_s": Column("s", "arrival of the first request"),
    "num_turns": Column("", "requests of the session"),
    "num_completed": Column("", "those that were completed"),
    "prompt_tokens": Column("tokens", "tokens of the prompts of all turns"),
    "output_tokens": Column("tokens", "tokens of the answers of all turns"),
    "held_tokens": Column("tokens", "tokens that the cache had been given at the end"),
    "hit_tokens": Column("tokens", "of the prompts' tokens, those found in the prefix cache, and not computed"),
    "host_tokens": Column("tokens", "of the prompts' tokens, those loaded from the host's memory"),
    "disk_tokens": Column("tokens", "the same from the disk"),
    "remote_tokens": Column("tokens", "the same from the remote store"),
    "load_wait_s": Column("s", "sum over the turns"),
    "num_preemptions": Column("", "sum over the turns"),
    "peak_bytes": Column("bytes", "the most device bytes allocated to the session after a step"),
    "latency_s": Column("s", "end of the last request - arrival; think time is included; empty where not completed"),
}
