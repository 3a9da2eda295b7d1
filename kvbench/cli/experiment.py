"""One experiment: build, run, and write its folder."""

from pathlib import Path

from tqdm import tqdm

from kvbench.cli.compose import Config, backend_of, budget_of, check_numbers, geometry_of
from kvbench.cli.errors import UsageError
from kvbench.cli.job import advancing
from kvbench.cli.targets import build
from kvbench.environment import environment
from kvbench.experiment.recompute import RecomputeExperiment, recompute_sentences
from kvbench.plots import recompute_chart, save
from kvbench.results import write_environment, write_frames, write_text


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
    experiment = build(config["experiment"], "experiment", "experiment", config["trusted"])
    if not isinstance(experiment, RecomputeExperiment):
        raise UsageError(f"experiment: _target_ is no experiment but a {type(experiment).__name__}")
    backend = backend_of(config, geometry_of(config))
    budget_bytes = budget_of(config, backend)
    device = backend.describe()
    num_repetitions, num_warmup = config["repetitions"], config["warmup"]
    print(f"{name}: {num_repetitions} repetitions after {num_warmup} of warm-up; {device['device_name']}", flush=True)
    total = sum(n + experiment.num_decode_tokens for n in experiment.context_tokens) * len(experiment.strategies)
    with tqdm(total=total * (num_repetitions + num_warmup), unit="tok", disable=None, leave=False) as bar:
        frame, requests, steps = experiment.run(
            backend,
            num_repetitions=num_repetitions,
            num_warmup=num_warmup,
            budget_bytes=budget_bytes,
            on_iteration=advancing(bar),
        )
    sentences = recompute_sentences(frame)
    about = {"experiment": name, "seed": config["seed"], "budget_bytes": budget_bytes, "overrides": overrides}
    write_frames(folder, frame, requests, steps)
    write_text(folder / "config.yaml", config_text)
    write_environment(folder, environment() | device | about)
    save(recompute_chart(frame), folder / "charts", "recompute")
    body = "\n".join(f"- {sentence}" for sentence in sentences)
    write_text(folder / "report.md", f"# {name}\n\n![recompute](charts/recompute.png)\n\n{body}\n")
    print("\n".join([*sentences, f"charts: {folder / 'charts'}", f"report: {folder / 'report.md'}"]), flush=True)
