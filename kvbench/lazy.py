"""Public names of a package, each imported when it is used."""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def public(package: str, file: str, parts: tuple[str, ...] = ()) -> tuple[Callable[[str], object], list[str]]:
    """A package's `__getattr__` and its names: those that it imports `as` themselves for type checkers alone.

    Args:
        package: its name.
        file: its `__init__.py`, which is read for them.
        parts: packages in it that are public too.
    """
    nodes = ast.walk(ast.parse(Path(file).read_text(encoding="utf-8")))
    own = [each for each in nodes if isinstance(each, ast.ImportFrom) and each.names[0].asname]
    homes = {each.names[0].name: each.module or "" for each in own}

    def get(name: str) -> object:
        if name in parts:
            return import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return get, sorted([*homes, *parts])
