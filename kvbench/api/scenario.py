"""One job: build, run, and write its folder."""

from dataclasses import replace
from pathlib import Path

from kvbench.api.measure import RunResult, measure
from kvbench.api.probe import check_probe, quality_frame, quality_line
from kvbench.charts.catalogue import run_charts
from kvbench.charts.cautions import of_busy_machine, warnings
from kvbench.charts.markdown import report_markdown
from kvbench.charts.table import table_text
from kvbench.cli.terminal import say
from kvbench.cli.writing import draw, writing
from kvbench.configuration.parts import Config, Parts, parts_of
from kvbench.results.environment import environment
from kvbench.results.results import Results
from kvbench.runner.frames import results_of
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
            results = recorded(found, name, config, parts, device, asked | {"header": header}, config_text)
            results.save(folder)
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
    about = {} if quality is None else {own: quality.columns(own) for own in parts.strategies}
    results = results_of(found.recorder, parts.workload.sessions, parts.backend, name, machine=device, about=about)
    made = environment() | device | {"others_share": found.others_share}
    made |= {"scenario": name, "seed": config["seed"], "budget_bytes": parts.budget_bytes, **asked}
    if quality is not None:
        made["quality"] = quality_line(quality)
    return replace(results, quality=quality_frame(quality), environment=made, configuration=config_text)


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
