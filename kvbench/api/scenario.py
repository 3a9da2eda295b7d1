"""A scenario under strategies, step by step: measured, or priced."""

from dataclasses import replace

from kvbench.api.job import Job, Stopped
from kvbench.api.measure import RunResult, measure
from kvbench.api.probe import check_probe, quality_frame, quality_line
from kvbench.api.quality import quality_columns
from kvbench.configuration.chosen import strategies_of
from kvbench.configuration.engine import parallel_of
from kvbench.configuration.model import model_of
from kvbench.configuration.parts import Config, Parts, parts_of
from kvbench.ledger import UNLIMITED
from kvbench.model.parallel import Parallel
from kvbench.results.environment import environment
from kvbench.results.results import Results
from kvbench.runner.frames import results_of
from kvbench.workload.request import NS_PER_S


def scenario_job(name: str, config: Config, config_text: str, asked: Config) -> Job:
    """The configured strategies on a scenario, step by step; see `engines.job_of`.

    Raises:
        UsageError: the configuration is wrong; nothing was run.
    """
    parts = parts_of(config)
    check_probe(config, parts.backend.geometry, parts.strategies)
    device = parts.backend.describe()
    header = header_lines(name, config, parts, device)

    def run() -> Results:
        found = measure(config, parts, device)
        told = {**asked, "header": [*header, *found.notes]}
        results = recorded(found, name, config, parts, device, told, config_text)
        if found.stopped:
            raise Stopped(found.stopped, results)
        return results

    return Job(header, run)


def recorded(
    found: RunResult,
    name: str,
    config: Config,
    parts: Parts,
    device: dict[str, object],
    asked: Config,
    config_text: str,
) -> Results:
    """What was recorded, with where it was made and what was asked for."""
    quality = found.quality
    about = quality_columns(config, strategies_of(config), parts.workload.sessions)
    if quality is not None:
        about = {own: quality.columns(own) | about[own] for own in parts.strategies}
    results = results_of(found.recorder, parts.workload.sessions, parts.backend, name, machine=device, about=about)
    made = environment() | device | {"others_share": found.others_share}
    made |= {"scenario": name, "seed": config["seed"], "budget_bytes": parts.budget_bytes, **asked}
    if quality is not None:
        made["quality"] = quality_line(quality)
    return replace(results, quality=quality_frame(quality), environment=made, configuration=config_text)


def header_lines(name: str, config: Config, parts: Parts, device: dict[str, object]) -> list[str]:
    """What was run, on what: model, layers, dtype, bytes a token, device, repetitions, requests."""
    sessions, num_all = parts.workload.sessions, parts.workload.num_available
    num_requests, num_sessions = sum(len(session.turns) for session in sessions), parts.workload.num_sessions
    span_s = (sessions[-1].arrival_ns - sessions[0].arrival_ns) / NS_PER_S
    arriving = f" arriving over {span_s:,.4g} s" if span_s > 0 else ""
    if parts.workload.num_clients is not None:
        arriving = f" sent by {parts.workload.num_clients:,} at once, each its next when its last has ended"
    num_repetitions = parts.num_repetitions
    named = [key for key in ("hardware", "engine") if config.get(key) is not None]
    named += ["parallel"] if parallel_of(config) != Parallel() else []
    is_measured, is_modelled = parts.backend.source == "measured", parts.backend.hardware is not None
    fills = not is_measured and config.get("engine") is not None
    named = [key for key in named if is_measured or (key == "hardware" and not is_modelled)]
    unused = f"{', '.join(named)} {'is' if len(named) == 1 else 'are'} not looked at"
    why = "times are measured here" if is_measured else "every step takes as long"
    budget = "no budget" if parts.budget_bytes == UNLIMITED else f"budget {parts.budget_bytes:,} bytes"
    return [
        f"{name}: {num_sessions:,} of {num_all:,} sessions{arriving}, {num_requests:,} requests, at most "
        f"{parts.max_concurrency} at once",
        f"{parts.backend.geometry.about}; {device['device']} ({device['device_name']}); "
        f"attention {'on' if config['attend'] else 'off'}",
        f"{num_repetitions} repetition{'s' if num_repetitions > 1 else ''} after {parts.num_warmup} of warm-up; "
        f"{budget}; {parts.backend.source}, scope {parts.backend.scope}",
        *([str(device["data"])] if "data" in device else []),
        *(f"assumed: {sentence}" for sentence in (*parts.workload.notes, *model_of(config).assumed)),
        *([f"{unused}: {why}"] if named else []),
        *([f"engine fills steps: {parts.backend.scheduling.about}; memory is the backend's"] if fills else []),
    ]
