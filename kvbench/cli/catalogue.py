"""What configuration files exist, and what each says of itself; read without Hydra, so that lists come at once."""

import re
from pathlib import Path

import yaml

CONF = Path(__file__).resolve().parent.parent / "conf"
GROUPS = ("scenario", "strategy", "model", "backend", "hardware", "experiment")


def names(group: str, folders: tuple[Path, ...] = ()) -> list[str]:
    """Names of a group's files, kvbench's own and those in further configuration folders."""
    found = {path.stem for folder in (CONF, *folders) for path in (folder / group).glob("*.yaml")}
    return sorted(found)


def file_of(group: str, name: str, folders: tuple[Path, ...] = ()) -> Path | None:
    """The file that Hydra will take: kvbench's own comes first."""
    for folder in (CONF, *folders):
        path = folder / group / f"{name}.yaml"
        if path.is_file():
            return path
    return None


def default_strategies() -> list[str]:
    """The strategies compared where none is chosen."""
    defaults = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return next(entry["strategy"] for entry in defaults if isinstance(entry, dict) and "strategy" in entry)


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
    return "\n".join(f"  {name:<{width}}  {summary_line(file_of(group, name))}" for name in names(group))
