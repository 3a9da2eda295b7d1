"""The help text; needs neither Hydra nor torch."""

import difflib
import shlex
import textwrap
from collections.abc import Sequence

from kvbench.cli import VERBS
from kvbench.configuration.catalogue import GROUPS, default_strategies, listing, names
from kvbench.messages import listed, unknown

_TEXT = """kvbench: which KV-cache strategy for which workload, measured.

usage:
  python -m kvbench +scenario=NAME [overrides]     compare strategies on a scenario
  python -m kvbench +experiment=NAME [overrides]   run an experiment
  python -m kvbench -m +scenario=NAME key=a,b,c    sweep; one frame and one set of charts at the end
  python -m kvbench -m … workers=2                 the same in two processes; workers=0 leaves it to `work`
  python -m kvbench work results/X                 run a sweep's points beside others that do, here or elsewhere
  python -m kvbench resume results/X               run what a sweep lacks, or what failed; collect: join what there is
  python -m kvbench rerun results/X                run a folder's configuration as it stands, and say what differs
  python -m kvbench scenarios [NAME]               list scenarios, or draw one
  python -m kvbench strategies [NAME]              list strategies and their parameters, or tell all of one
  python -m kvbench capacity model=M hardware=H    how many tokens, and how many requests, fit beside a model
  python -m kvbench metrics                        every recorded column: unit and meaning
  python -m kvbench train trace=NAME out=FILE      train the predictor of predictive_learned, and rate it
  python -m kvbench calibrate out=FILE             measure this machine, for backend=modelled hardware=./FILE
  python -m kvbench calibrate from=TABLE           fit a machine to a table of measured kernels
  python -m kvbench validate FILE…                 what others measured and engines printed, beside what is said here
  python -m kvbench compare RUN RUN…               what became of each figure from one run to another, with intervals
  python -m kvbench rate +scenario=… subject_to=…  the highest load at which objectives hold, with its interval
  python -m kvbench recommend +scenario=… hardware=[…] subject_to=[…]     what to deploy, in plain words, with its doubt
  python -m kvbench tune +scenario=… hardware=[…]  the best deployment under constraints, held against defaults
  python -m kvbench record model=NAME text=FILE    save a real model's K, V and queries, for data=kv.safetensors

overrides:
  strategy=dynamic  'strategy=[static,dynamic]'    which strategies (default: {defaults})
  strategy.dynamic.growth_factor=2                 a strategy's parameter
  '+strategy@strategy.fast=dynamic' strategy.fast.growth_factor=2     a second instance of one, with a name
  scenario.max_requests=10 scenario.max_concurrency=4 scenario.path=trace.csv
  repetitions=5 warmup=1 seed=0 attend=true        how it is measured
  device=auto|cpu|cuda  dtype=float32|float16|bfloat16  budget_bytes=N
  model=./config.json  model=llama3_8b              a published configuration, its folder or a YAML file, or one of
{models}
  model.num_layers=1                               shrink a model
  data=kv.safetensors                              append recorded K and V, and judge quality on them
  backend=measured|modelled|fleet                  on tensors; priced on a machine; a whole trace, event by event
  hardware=h100                                    one of
{machines}
  engine=vllm|sglang|trtllm|ideal  engine.block_size=32     a serving engine's rules, under its own flags' names
  parallel.tensor=2                                ranks that a model is divided over (pipeline, expert, data, …)
  hardware=./mine.yaml cache_only=true             a machine file of your own; without weights and projections
  +scenario=./mine.yaml                            a scenario file of your own
  trusted=[mypackage]                              let configuration name classes of your package

scenarios:
{scenarios}

experiments:
{experiments}

--cfg job prints the configuration; --hydra-help tells of Hydra's own flags; HYDRA_FULL_ERROR=1 shows tracebacks.
"""


def text() -> str:
    """What `--help` prints."""
    return _TEXT.format(
        defaults=", ".join(default_strategies()),
        models=_wrapped(names("model")),
        machines=_wrapped(names("hardware")),
        scenarios=listing("scenario"),
        experiments=listing("experiment"),
    )


def _wrapped(found: list[str]) -> str:
    return textwrap.fill(", ".join(found), width=110, initial_indent=" " * 6, subsequent_indent=" " * 6)


PROGRAM = "python -m kvbench"
SCENARIO = "short_chat"
OTHERS = {"help": ["--help"], "usage": ["--help"], "version": ["--version"], "list": ["scenarios"], "ls": ["scenarios"]}
RUNS = (
    "run",
    "bench",
    "benchmark",
    "start",
    "simulate",
    "measure",
    "evaluate",
    "test",
    "sweep",
)
"""Words of other programs for what kvbench does where no verb is given."""


def unknown_verb(arguments: Sequence[str]) -> str:
    """Say that the first word is no verb, and what to type instead where that can be told."""
    word = arguments[0]
    kinds = _kinds()
    known = {**dict.fromkeys(VERBS, "verb"), **kinds, **dict.fromkeys((*OTHERS, *RUNS), "word")}
    nearest = difflib.get_close_matches(word[:80].casefold(), known, n=1, cutoff=0.7)
    if word.lower().endswith((".yaml", ".yml")):
        return f"{word!r} is no verb; a scenario file is run so:\n  {_command([f'+scenario={word}'], arguments[1:])}"
    if not nearest:
        return f"{unknown('verb', word, VERBS)}\n  {PROGRAM} --help tells of everything"
    name = nearest[0]
    if name in VERBS:
        return f"{unknown('verb', word, VERBS)}\n  {_command([name], arguments[1:])}"
    if name in OTHERS:
        made = _command(OTHERS[name], ())
    else:
        made = _run([name, *arguments[1:]] if name in kinds else arguments[1:], kinds)
    is_kind = f"; {name} is {'an' if kinds[name] == 'experiment' else 'a'} {kinds[name]}" if name in kinds else ""
    return f"unknown verb {word!r}{is_kind}. Did you mean:\n  {made}\n  verbs: {listed(sorted(VERBS))}"


def run_of(words: Sequence[str]) -> str | None:
    """The command that runs what words name: strategies, scenarios, machines; None where they name something else."""
    kinds = _kinds()
    return _run(words, kinds) if any(word in kinds for word in words) else None


def _kinds() -> dict[str, str]:
    return {name: group for group in reversed(GROUPS) for name in names(group)}


def _run(words: Sequence[str], kinds: dict[str, str]) -> str:
    """A run of what the words name."""
    chosen: dict[str, list[str]] = {}
    for word in words:
        chosen.setdefault(kinds.get(word, ""), []).append(word)
    rest = [word for word in chosen.pop("", []) if "=" in word or word.startswith("-")]
    strategies = chosen.pop("strategy", [])
    if "experiment" not in chosen:
        chosen.setdefault("scenario", [SCENARIO])
    if "hardware" in chosen:
        chosen.setdefault("backend", ["modelled"])
    overrides = [
        f"{'+' if group in ('scenario', 'experiment') else ''}{group}={chosen[group][0]}"
        for group in ("scenario", "experiment", "model", "backend", "hardware", "engine")
        if group in chosen
    ]
    if strategies:
        overrides.append(f"strategy=[{','.join(strategies)}]" if len(strategies) > 1 else f"strategy={strategies[0]}")
    return _command(overrides, rest)


def _command(words: Sequence[str], rest: Sequence[str]) -> str:
    return f"{PROGRAM} {shlex.join([*words, *rest])}"
