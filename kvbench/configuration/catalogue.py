"""What configuration files exist, and what each says of itself; read without Hydra, so that lists come at once."""

import os
import re
from collections.abc import Container
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
PACKAGE = Path(__file__).resolve().parent.parent
HOME = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent
"""What holds `conf` and `scenarios`: an installed package, or the checkout that the package stands in."""

CONF, SCENARIOS = HOME / "conf", HOME / "scenarios"
GROUPS = ("scenario", "strategy", "model", "backend", "hardware", "engine", "experiment")


def names(group: str, folders: tuple[Path, ...] = ()) -> list[str]:
    """Names of a group's files, kvbench's own and those in further configuration folders."""
    if not folders:
        return list(_own_names(group))
    return sorted({*_own_names(group), *(path.stem for folder in folders for path in (folder / group).glob("*.yaml"))})


@cache
def _own_names(group: str) -> tuple[str, ...]:
    return tuple(sorted({path.stem for folder in _folders(group, ()) for path in folder.glob("*.yaml")}))


def file_of(group: str, name: str, folders: tuple[Path, ...] = ()) -> Path | None:
    """The file that Hydra will take: kvbench's own comes first."""
    paths = (folder / f"{name}.yaml" for folder in _folders(group, folders))
    return next((path for path in paths if os.path.isfile(path)), None)  # False, too, of a name that is too long


def own_file(group: str, name: str) -> Path:
    """The file of one of kvbench's own names."""
    path = file_of(group, name)
    assert path is not None
    return path


def own_node(group: str, name: str) -> dict[str, Any]:
    """What the file of one of kvbench's own names says."""
    return _read(own_file(group, name))


def own_settings() -> dict[str, Any]:
    """What conf/config.yaml says, for Hydra and for everyone."""
    return _read(CONF / "config.yaml")


def _read(path: Path) -> dict[str, Any]:
    return deepcopy(_parsed(path))


@cache
def _parsed(path: Path) -> dict[str, Any]:
    node: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), _PARSER)
    return node


def _folders(group: str, more: tuple[Path, ...]) -> list[Path]:
    own = SCENARIOS if group == "scenario" else CONF / group
    return [own, *(folder / group for folder in more)]


def default_strategies() -> list[str]:
    """The strategies compared where none is chosen."""
    entries = own_settings()["defaults"]
    chosen: list[str] = next(entry["strategy"] for entry in entries if isinstance(entry, dict) and "strategy" in entry)
    return chosen


def implied(chosen: Container[str]) -> dict[str, str]:
    """What is meant and not said, by group: a machine that is named is there to be modelled.

    Args:
        chosen: groups of which something was.
    """
    return {"backend": "modelled"} if "hardware" in chosen and "backend" not in chosen else {}


def summary_line(path: Path) -> str:
    """A file's description, or else its first comment, that is no directive."""
    text = path.read_text(encoding="utf-8")
    described = re.search(r"^description:\s*[\"']?(.+?)[\"']?\s*$", text, re.MULTILINE)
    if described:
        return described.group(1)
    comments = [line[1:].strip() for line in text.splitlines() if line.startswith("#") and "@package" not in line]
    return comments[0] if comments else ""


def listing(group: str) -> str:
    """A group's names and what each says of itself, a line each."""
    width = max(len(name) for name in names(group))
    return "\n".join(f"  {name:<{width}}  {summary_line(own_file(group, name))}" for name in names(group))
