"""Configuration's keys and defaults, from signatures. `python -m tests.support.defaults` writes the files anew.

A file has each parameter of its class as a key, so that the command line can set it. A class's own file, the only one
that names it or the one that has its module's name, has the signature's defaults; the others have values of theirs.
Comments stay.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from importlib import import_module
from inspect import Parameter, signature

import yaml

from kvbench.configuration.catalogue import file_of, names
from kvbench.workload.scenario import Scenario

GROUPS = ("strategy", "scenario", "backend", "engine", "experiment")
GIVEN = {
    "scenario": {field.name for field in fields(Scenario)},
}
"""Parameters that need not stand in a group's files: a run gives them, or every scenario has them."""


def class_named(target: str) -> type:
    """The class of a `_target_`."""
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


@cache
def parameters(target: str) -> dict[str, object]:
    """Each parameter's default; MISSING where it has none."""
    made = class_named(target)
    factories = {field.name: field.default_factory for field in fields(made)} if is_dataclass(made) else {}
    return {
        name: factories[name]()
        if factories.get(name, MISSING) is not MISSING
        else (MISSING if each.default is Parameter.empty else each.default)
        for name, each in signature(made).parameters.items()
    }


def plain(value: object) -> object:
    """A default as YAML has it."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if is_dataclass(value):
        target = f"{type(value).__module__}.{type(value).__qualname__}"
        return {"_target_": target} | {name: plain(getattr(value, name)) for name in parameters(target)}
    return value


def is_own(group: str, name: str) -> bool:
    """Whether a file is its class's own."""
    target = targets(group)[name]
    alike = [other for other, named in targets(group).items() if named == target]
    return group != "scenario" and (alike == [name] or target.split(".")[-2] == name)


@cache
def targets(group: str) -> dict[str, str]:
    """Of each file, the class that it names."""
    return {name: yaml.safe_load(file_of(group, name).read_text(encoding="utf-8"))["_target_"] for name in names(group)}


def written(group: str, name: str, text: str) -> str:
    """The file with the keys of its class's parameters, and the defaults where it is the class's own."""
    root = yaml.compose(text)
    text = _edited(text, (edit for node in _made(root) for edit in _keys(group, node, is_root=node is root)))
    return _edited(text, _values(yaml.compose(text))) if is_own(group, name) else text


def _edited(text: str, edits: Iterable["Edit"]) -> str:
    lines = [*text.splitlines(keepends=True), ""]
    for start, end, new in sorted(edits, reverse=True):
        lines[start[0] : end[0] + 1] = [lines[start[0]][: start[1]] + new + lines[end[0]][end[1] :]]
    return "".join(lines)


Place = tuple[int, int]
Edit = tuple[Place, Place, str]


def _made(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    """The mappings that make an object."""
    inner = [value for _, value in node.value] if isinstance(node, yaml.MappingNode) else node.value
    if isinstance(node, yaml.MappingNode) and "_target_" in _by_key(node):
        yield node
    for each in inner if isinstance(node, yaml.CollectionNode) else ():
        yield from _made(each)


def _by_key(node: yaml.MappingNode) -> dict[str, yaml.Node]:
    return {key.value: value for key, value in node.value}


def _keys(group: str, node: yaml.MappingNode, *, is_root: bool) -> Iterator[Edit]:
    """Add the keys that are wanting, after the last; take out those that are none."""
    found = parameters(_by_key(node)["_target_"].value)
    optional = GIVEN.get(group, set()) if is_root else set()
    for key, value in node.value:
        if key.value not in {"_target_", *found}:
            yield (key.start_mark.line, 0), (_end(value), 0), ""
    wanting = [name for name in found if name not in {*_by_key(node), *optional} and found[name] is not MISSING]
    indent = " " * node.value[0][0].start_mark.column
    new = "".join(f"{line}\n" for name in wanting for line in _text({name: plain(found[name])}, indent))
    if new:
        end = _end(node.value[-1][1])
        yield (end, 0), (end, 0), new


def _values(root: yaml.MappingNode) -> Iterator[Edit]:
    """Set values that are not the defaults."""
    found = parameters(_by_key(root)["_target_"].value)
    for key, node in root.value:
        default = plain(found.get(key.value, MISSING))
        value = yaml.safe_load(yaml.serialize(node))
        if default is MISSING or value == default or (isinstance(value, str) and value.startswith("${")):
            continue
        start, end = node.start_mark, node.end_mark
        if isinstance(node, yaml.ScalarNode):
            yield (start.line, start.column), (end.line, end.column), _flow(default)
        else:
            text = "".join(f"{line}\n" for line in _text({key.value: default}, ""))
            yield (key.start_mark.line, 0), (_end(node), 0), text


def _end(node: yaml.Node) -> int:
    """The line after a value."""
    mark = node.end_mark
    return mark.line if isinstance(node, yaml.CollectionNode) and not node.flow_style else mark.line + 1


def _text(mapping: Mapping[str, object], indent: str) -> Iterator[str]:
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _text(value, indent + "  ")
        else:
            yield f"{indent}{key}: {_flow(value)}"


def _flow(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()


def main() -> None:
    """Write all files anew."""
    for group in GROUPS:
        for name in names(group):
            path = file_of(group, name)
            text = path.read_text(encoding="utf-8")
            path.write_text(written(group, name, text), encoding="utf-8")


if __name__ == "__main__":
    main()
