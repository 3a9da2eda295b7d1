"""What was probably meant by a first word that is no verb, as a command to type."""

import difflib
import shlex
from collections.abc import Sequence

from kvbench.cli import VERBS
from kvbench.configuration.catalogue import GROUPS, names
from kvbench.naming import listed, unknown

PROGRAM = "python -m kvbench"
SCENARIO = "short_chat"
OTHERS = {"help": ["--help"], "usage": ["--help"], "version": ["--version"], "list": ["scenarios"], "ls": ["scenarios"]}
RUNS = (
    "compare",
    "recommend",
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
    kinds = {name: group for group in reversed(GROUPS) for name in names(group)}
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
        for group in ("scenario", "experiment", "model", "backend", "hardware")
        if group in chosen
    ]
    if strategies:
        overrides.append(f"strategy=[{','.join(strategies)}]" if len(strategies) > 1 else f"strategy={strategies[0]}")
    return _command(overrides, rest)


def _command(words: Sequence[str], rest: Sequence[str]) -> str:
    return f"{PROGRAM} {shlex.join([*words, *rest])}"
