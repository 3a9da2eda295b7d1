"""An experiment: what it names is built, and it runs."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tqdm.auto import tqdm

from kvbench.api.advice_text import USE
from kvbench.api.job import Job
from kvbench.api.measure import clocked, stepping
from kvbench.api.progress import hushed, watched
from kvbench.api.recommending import recommend
from kvbench.configuration.catalogue import names, own_node
from kvbench.configuration.chosen import is_fleet
from kvbench.configuration.errors import UsageError, refusing
from kvbench.configuration.model import geometry_of, hardware_of, model_of, name_or_path_of, weights_of
from kvbench.configuration.parts import Config, added_nodes, backend_of, budget_of, check_numbers, repetitions_of
from kvbench.configuration.targets import build
from kvbench.messages import unknown
from kvbench.results.environment import environment, since
from kvbench.studies.base import Advised, Experiment, Findings, NamedModel, Setting


def study_job(name: str, config: Config, config_text: str, asked: Config) -> Job:
    """An experiment; see `engines.job_of`.

    Raises:
        UsageError: the configuration is wrong; nothing was run.
    """
    check_numbers(config)
    experiment = experiment_of(config)
    setting = setting_of(config)
    device = setting.backend.describe()
    with refusing():
        header = _header(name, config, experiment, setting, device)

    def run() -> Findings:
        start = clocked(setting.backend) if experiment.num_tokens else None
        findings = _run(experiment, setting)
        about = {"experiment": name, "seed": setting.seed, "budget_bytes": setting.budget_bytes, **asked}
        made = environment() | device | {"others_share": since(start)} | about | {"header": header}
        return replace(findings, environment=made, configuration=config_text)

    return Job(header, run)


def experiment_of(config: Config) -> Experiment:
    """The configured experiment; the scenarios and strategies that it names are built from their own files.

    Raises:
        UsageError: it is none, a name is unknown, or a parameter is wrong.
    """
    node = dict(config["experiment"])
    added = added_nodes(config)
    takers = [str(key) for key in node if str(key).endswith("strategies")]
    if added and not takers:
        raise UsageError(
            f"+strategy.{next(iter(added))}: this experiment has strategies of its own and takes no others; those that "
            f"do have a key strategies: {', '.join(_takers())}"
        )
    for key, value in node.items():
        where = f"experiment.{key}"
        if key == "scenarios":
            node[key] = _scenarios(value, where)
        elif str(key).endswith("strategies"):
            node[key] = _strategies(value, where, added, config["trusted"])
        elif key == "models":
            node[key] = _models(value, where)
        elif key == "machines":
            node[key] = _machines(value, where)
        elif key == "hardware":
            node[key] = hardware_of({"hardware": _node("hardware", value, where)})
    experiment = build(node, "experiment", "experiment", config["trusted"])
    if not isinstance(experiment, Experiment):
        raise UsageError(f"experiment: _target_ is no experiment but a {type(experiment).__name__}")
    return experiment


def setting_of(config: Config) -> Setting:
    """What the configuration gives an experiment.

    Raises:
        UsageError: a number or a name is wrong.
    """
    if is_fleet(config):
        raise UsageError("an experiment steps through its requests: give it backend=measured or backend=modelled")
    backend = backend_of(config, geometry_of(config))
    num_repetitions, num_warmup = repetitions_of(config, backend)
    return Setting(
        backend=backend,
        backend_of=lambda geometry: backend_of(config, geometry),
        num_repetitions=num_repetitions,
        num_warmup=num_warmup,
        budget_bytes=budget_of(config, backend),
        seed=config["seed"],
        is_budget_given=config["budget_bytes"] is not None,
        name_or_path=name_or_path_of(config),
        device=config["device"],
        recommend=_advised,
    )


def _advised(scenario: object, strategies: object, **asked: Any) -> Advised:
    """What is recommended, without signs of life beside the experiment's own."""
    with hushed():
        found = recommend(scenario, strategies, **asked)  # type: ignore[arg-type]
    best = None if found.tuned.best is None else int(found.tuned.best["deployment"])
    return Advised(" ".join(found.parts[USE]), found.tuned.rows, best)


def _scenarios(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise UsageError(f"{where} is a list of at least one scenario's name, got {value!r}")
    return {name: build(_node("scenario", name, where), "scenario", where) for name in value}


def _models(value: object, where: str) -> dict[str, NamedModel]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise UsageError(f"{where} is a list of at least one model's name, got {value!r}")
    configs = {name: {"model": _node("model", name, where), "dtype": None} for name in value}
    return {
        name: NamedModel(geometry_of(config), weights_of(config), model_of(config)) for name, config in configs.items()
    }


def _machines(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise UsageError(f"{where} is a list of at least one machine's name, got {value!r}")
    return {name: hardware_of({"hardware": _node("hardware", name, where)}) for name in value}


def _takers() -> list[str]:
    """Experiments that compare strategies by name."""
    nodes = {name: own_node("experiment", name) for name in names("experiment")}
    return [name for name, node in nodes.items() if any(key.endswith("strategies") for key in node)]


def _strategies(
    value: object, where: str, added: Mapping[str, Mapping[str, Any]], trusted: Sequence[str]
) -> dict[str, Any]:
    """Those that the experiment names, kvbench's own or a trusted package's, and those that the user adds to a run."""
    if not isinstance(value, Mapping) or not value or not all(isinstance(own, Mapping) for own in value.values()):
        raise UsageError(f"{where} is a mapping from strategies' names to their parameters, got {value!r}")
    strategies = {}
    for name, given in value.items():
        own = dict(given)
        node: Mapping[str, Any] = {} if "_target_" in own else _node("strategy", str(own.pop("strategy", name)), where)
        strategies[str(name)] = build({**node, **own}, "strategy", f"{where}.{name}", trusted)
    for name, node in added.items():
        if name in strategies:
            raise UsageError(f"strategy.{name}: {where} has a {name} already; give it another name")
        strategies[name] = build(node, "strategy", f"strategy.{name}", trusted)
    return strategies


def _node(group: str, name: str, where: str) -> dict[str, Any]:
    """What one of kvbench's own files says."""
    if name not in names(group):
        raise UsageError(f"{where}: {unknown(group, name, names(group))}")
    return own_node(group, name)


def _run(experiment: Experiment, setting: Setting) -> Findings:
    num_runs = setting.num_repetitions + setting.num_warmup if experiment.is_repeated else 1
    with watched(experiment.num_tokens * num_runs, "tokens") as advance, refusing():
        return experiment.run(replace(setting, on_iteration=stepping(advance), say=_said))


def _said(line: str) -> None:
    """Print a line above the progress bar."""
    tqdm.write(line)
    sys.stdout.flush()


def _header(
    name: str, config: Config, experiment: Experiment, setting: Setting, device: Mapping[str, Any]
) -> list[str]:
    """What was run, on what."""
    own = experiment.header(setting)
    if own is not None:
        return [f"{name}: {own[0]}", *own[1:]]
    if not experiment.num_tokens:
        return _untimed_header(name, setting)
    num_repetitions = setting.num_repetitions
    return [
        f"{name}: {num_repetitions} repetition{'s' if num_repetitions > 1 else ''} after {setting.num_warmup} of "
        f"warm-up; {setting.backend.source}, scope {setting.backend.scope}; budget {setting.budget_bytes:,} bytes",
        f"{setting.backend.geometry.about}; {device['device']} ({device['device_name']}); "
        f"attention {'on' if config['attend'] else 'off'}",
    ]


def _untimed_header(name: str, setting: Setting) -> list[str]:
    """The same for an experiment that appends nothing: it has no repetitions, and no device does anything."""
    return [f"{name}: computed; nothing is carried out or timed", setting.backend.geometry.about]
