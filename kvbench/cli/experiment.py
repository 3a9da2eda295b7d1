"""One experiment: build, run, and write its folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import yaml
from tqdm import tqdm

from kvbench.cli.catalogue import file_of, names
from kvbench.cli.compose import Config, backend_of, budget_of, check_numbers, geometry_of
from kvbench.cli.errors import UsageError
from kvbench.cli.job import advancing
from kvbench.cli.targets import build
from kvbench.environment import environment
from kvbench.experiment.base import Experiment, Findings, Setting
from kvbench.naming import unknown
from kvbench.plots import save
from kvbench.report import findings_markdown, findings_text
from kvbench.results import write_environment, write_frames, write_text, write_whole


def run_experiment(name: str, config: Config, config_text: str, overrides: list[str], folder: Path) -> None:
    """Run an experiment, print what it shows, and write the results folder.

    Args:
        name: the experiment's.
        config: composed and resolved.
        config_text: the same as YAML, for config.yaml.
        overrides: of this job, for environment.json.
        folder: where results go.
    Raises:
        UsageError: the configuration is wrong; nothing was run.
    """
    check_numbers(config)
    experiment = experiment_of(config)
    setting = setting_of(config)
    device = setting.backend.describe()
    header = _header(name, config, setting, device)
    print("\n".join(header), flush=True)
    findings = _run(experiment, setting)
    about = {"experiment": name, "seed": setting.seed, "budget_bytes": setting.budget_bytes, "overrides": overrides}
    write_frames(folder, findings.table, findings.requests, findings.steps)
    for table, frame in {**findings.tables, **findings.files}.items():
        write_whole(folder / f"{table}.csv", lambda partial, frame=frame: frame.to_csv(partial, index=False))
    write_text(folder / "config.yaml", config_text)
    write_environment(folder, environment() | device | about)
    for chart, figure in findings.charts.items():
        save(figure, folder / "charts", chart)
    tables = _tables(findings)
    write_text(folder / "report.md", findings_markdown(name, header, findings.sentences, tables, list(findings.charts)))
    print(findings_text(findings.sentences, tables))
    print(f"charts: {folder / 'charts'}\nreport: {folder / 'report.md'}", flush=True)


def experiment_of(config: Config) -> Experiment:
    """The configured experiment; the scenarios and strategies that it names are built from their own files.

    Raises:
        UsageError: it is none, a name is unknown, or a parameter is wrong.
    """
    node = dict(config["experiment"])
    for key, value in node.items():
        where = f"experiment.{key}"
        if key == "scenarios":
            node[key] = _scenarios(value, where)
        elif str(key).endswith("strategies"):
            node[key] = _strategies(value, where)
    experiment = build(node, "experiment", "experiment", config["trusted"])
    if not isinstance(experiment, Experiment):
        raise UsageError(f"experiment: _target_ is no experiment but a {type(experiment).__name__}")
    return experiment


def setting_of(config: Config) -> Setting:
    """What the configuration gives an experiment.

    Raises:
        UsageError: a number or a name is wrong.
    """
    backend = backend_of(config, geometry_of(config))
    return Setting(
        backend=backend,
        backend_of=lambda geometry: backend_of(config, geometry),
        num_repetitions=config["repetitions"],
        num_warmup=config["warmup"],
        budget_bytes=budget_of(config, backend),
        seed=config["seed"],
    )


def _scenarios(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise UsageError(f"{where} is a list of at least one scenario's name, got {value!r}")
    return {name: build(_node("scenario", name, where), "scenario", where) for name in value}


def _strategies(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, Mapping) or not value or not all(isinstance(own, Mapping) for own in value.values()):
        raise UsageError(f"{where} is a mapping from strategies' names to their parameters, got {value!r}")
    return {
        str(name): build(_node("strategy", str(name), where) | dict(own), "strategy", f"{where}.{name}")
        for name, own in value.items()
    }


def _node(group: str, name: str, where: str) -> dict[str, object]:
    """What one of kvbench's own files says."""
    if name not in names(group):
        raise UsageError(f"{where}: {unknown(group, name, names(group))}")
    return yaml.safe_load(file_of(group, name).read_text(encoding="utf-8"))


def _run(experiment: Experiment, setting: Setting) -> Findings:
    total = experiment.num_tokens * (setting.num_repetitions + setting.num_warmup)
    with tqdm(total=total, unit="tok", disable=None, leave=False) as bar:
        try:
            return experiment.run(replace(setting, on_iteration=advancing(bar)))
        except ValueError as error:
            raise UsageError(str(error)) from error


def _tables(findings: Findings) -> dict[str, pd.DataFrame]:
    return {"summary": findings.table, **findings.tables}


def _header(name: str, config: Config, setting: Setting, device: Mapping[str, object]) -> list[str]:
    """What was run, on what."""
    geometry, num_repetitions = setting.backend.geometry, setting.num_repetitions
    layers = f"{geometry.num_layers} layer{'s' if geometry.num_layers > 1 else ''}"
    return [
        f"{name}: {num_repetitions} repetition{'s' if num_repetitions > 1 else ''} after {setting.num_warmup} of "
        f"warm-up; {setting.backend.source}, scope {setting.backend.scope}; budget {setting.budget_bytes:,} bytes",
        f"{geometry.name or 'model'}, {layers}, {geometry.dtype}, {geometry.bytes_per_token:,} bytes a token; "
        f"{device['device']} ({device['device_name']}); attention {'on' if config['attend'] else 'off'}",
    ]
