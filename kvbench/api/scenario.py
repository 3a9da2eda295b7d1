"""One job: build, run, and write its folder."""

import math
from pathlib import Path

import pandas as pd

from kvbench.api.measure import RunResult, measure
from kvbench.api.probe import check_probe, quality_frame, quality_line
from kvbench.backend.base import Backend
from kvbench.charts.catalogue import run_charts
from kvbench.charts.cautions import of_busy_machine, warnings
from kvbench.charts.markdown import report_markdown
from kvbench.charts.table import table_text
from kvbench.cli.terminal import say
from kvbench.cli.writing import draw, writing
from kvbench.configuration.parts import Config, Parts, parts_of
from kvbench.results.environment import environment
from kvbench.results.folder import Results, write_environment, write_frames, write_text
from kvbench.runner.frames import frames_of
from kvbench.strategy.base import Strategy
from kvbench.workload.request import NS_PER_S


def run_scenario(name: str, config: Config, config_text: str, asked: Config, folder: Path) -> None:
    """Run the configured strategies on a scenario, print the table, and write the results folder.

    Args:
        name: the scenario's.
        config: composed and resolved.
        config_text: the same as YAML, for config.yaml.
        asked: what was asked for, for environment.json.
        folder: where results go.
    Raises:
        UsageError: the configuration is wrong; nothing was run.
    """
    parts = parts_of(config)
    check_probe(config, parts.backend.geometry, parts.strategies)
    device = parts.backend.describe()
    header = header_lines(name, config, parts, device)
    say(header)
    found = measure(config, parts, device)
    header += found.notes
    print("\n".join(found.notes), end="\n" * bool(found.notes), flush=True)
    results, busy = None, of_busy_machine([found.others_share])
    try:
        with writing(folder):
            results = results_of(found, name, config, parts, device, asked, folder)
            write_frames(folder, results.summary, results.requests, results.steps, results.quality)
            write_text(folder / "config.yaml", config_text)
            write_environment(folder, results.environment | {"header": header})
    finally:
        if results is not None:
            print("\n".join([table_text(results.summary), *busy]), flush=True)
    charts, report = draw(
        folder,
        lambda: run_charts(results.summary, results.requests, results.steps, results.quality),
        lambda names: report_markdown(name, header, results.summary, names, cautions=busy),
    )
    num_warnings = len([*busy, *warnings(results.summary)])
    more = f" ({num_warnings} warning{'' if num_warnings == 1 else 's'} in it)" if num_warnings else ""
    print(f"charts: {charts}\nreport: {report}{more}", flush=True)
    if found.stopped:
        raise KeyboardInterrupt(f"{found.stopped}; they are in {folder}")


def results_of(
    found: RunResult,
    name: str,
    config: Config,
    parts: Parts,
    device: dict[str, object],
    asked: Config,
    folder: Path,
) -> Results:
    """What was recorded, as frames and an environment."""
    recorder, quality, backend = found.recorder, found.quality, parts.backend
    summary, by_request, steps = frames_of(
        recorder,
        parts.workload.sessions,
        backend,
        name,
        copy_bandwidth_bytes_per_s=float(device.get("copy_bandwidth_bytes_per_s", math.nan)),
        allocator=allocator_frame(recorder.allocator, recorder.strategies, recorder.num_warmup),
        about={
            name: {"available_bytes": parts.budget_bytes}
            | about(strategy, backend)
            | ({} if quality is None else quality.columns(name))
            for name, strategy in parts.strategies.items()
        },
    )
    made = environment() | device | {"others_share": found.others_share}
    made |= {"scenario": name, "seed": config["seed"], "budget_bytes": parts.budget_bytes, **asked}
    if quality is not None:
        made["quality"] = quality_line(quality)
    return Results(folder, summary, by_request, steps, made, quality_frame(quality))


def about(strategy: Strategy, backend: Backend) -> dict[str, object]:
    """What a strategy is, for its row of the summary."""
    ledger = strategy.ledger(backend.geometry, num_rows=backend.num_rows)
    found: dict[str, object] = strategy.facts | {"pool_bytes": sum(ledger.pool_bytes.values())}
    if any(area.is_staged for area in strategy.areas):
        found["roofline_share"] = math.nan  # its reads move other bytes than a token's
    return found


def allocator_frame(peaks: list[dict[str, int]], strategies: tuple[str, ...], num_warmup: int) -> pd.DataFrame:
    """The device allocator's peaks, a row a strategy and repetition, warm-up left out."""
    frame = pd.DataFrame(peaks)
    frame = frame[frame["repetition"] >= num_warmup]
    return frame.assign(strategy=[strategies[index] for index in frame["strategy"]])


def header_lines(name: str, config: Config, parts: Parts, device: dict[str, object]) -> list[str]:
    """What was run, on what: model, layers, dtype, bytes a token, device, repetitions, requests."""
    geometry = parts.backend.geometry
    sessions, num_all = parts.workload.sessions, parts.workload.num_available
    num_requests = sum(len(session.turns) for session in sessions)
    layers = f"{geometry.num_layers} layer{'s' if geometry.num_layers > 1 else ''}"
    span_s = (sessions[-1].arrival_ns - sessions[0].arrival_ns) / NS_PER_S
    arriving = f" arriving over {span_s:,.4g} s" if span_s > 0 else ""
    num_repetitions = parts.num_repetitions
    unused = config.get("hardware") is not None and parts.backend.hardware is None
    return [
        f"{name}: {len(sessions):,} of {num_all:,} sessions{arriving}, {num_requests:,} requests, at most "
        f"{parts.max_concurrency} at once",
        f"{geometry.name or 'model'}, {layers}, {geometry.dtype}, {geometry.bytes_per_token:,} bytes a token; "
        f"{device['device']} ({device['device_name']}); attention {'on' if config['attend'] else 'off'}",
        f"{num_repetitions} repetition{'s' if num_repetitions > 1 else ''} after {parts.num_warmup} of warm-up; "
        f"budget {parts.budget_bytes:,} bytes; {parts.backend.source}, scope {parts.backend.scope}",
        *([str(device["data"])] if "data" in device else []),
        *(["hardware is not looked at: times are measured here; backend=modelled prices with it"] if unused else []),
    ]
