"""Lists of modules, as quantisation writes them: paths, parts of paths, shell patterns and regular expressions."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from kvbench.messages import cut

MOST_REPETITIONS = 4
_OF_LAYER = re.compile(r"(?:^|.*\.)layers\.(\d+|\*)(\*?)(?:\.(.*))?")
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_REPETITION = re.compile(r"(?<!\\)[*+{]")


class ModuleNames:
    """A list of modules.

    Args:
        entries: paths such as "model.layers.0.mlp.down_proj", parts of them such as "gate" or "self_attn", patterns
            with *, and regular expressions behind "re:".
    Raises:
        ValueError: an entry is no text, or a regular expression that cannot be read, or may take forever.
    """

    def __init__(self, entries: Iterable[object]) -> None:
        self._everywhere: list[str] = []
        self._expressions: list[re.Pattern[str]] = []
        self._in_layers: dict[str, set[str]] = {}
        for entry in entries:
            if not isinstance(entry, str):
                raise ValueError(f"quantization_config names modules by text, got {cut(repr(entry))}")
            self._add(_one_name(entry))

    def _add(self, entry: str) -> None:
        if entry.startswith("re:"):
            self._expressions.append(_compiled(entry[3:]))
        elif found := _OF_LAYER.fullmatch(entry):
            number, star, rest = found[1], found[2], found[3] or ""
            self._in_layers.setdefault(rest, set()).add(number + star)
        else:
            self._everywhere.append(entry)

    def layers_of(self, module: str, layers: tuple[int, ...]) -> tuple[int, ...]:
        """Those of the layers in which a module is of the list."""
        module = _one_name(module)
        if any(_names(entry, module) for entry in self._everywhere):
            return layers
        numbers = set().union(*(own for rest, own in self._in_layers.items() if _begins(rest, module)))
        if "*" in numbers:
            return layers
        found = {layer for layer in layers if str(layer) in numbers or _is_among(layer, numbers)}
        for expression in self._expressions:
            if not re.search(r"\d|\\d", expression.pattern):
                if expression.match(f"model.layers.0.{module}"):
                    return layers
            else:
                found |= {layer for layer in layers if expression.match(f"model.layers.{layer}.{module}")}
        return tuple(layer for layer in layers if layer in found)

    def has(self, module: str) -> bool:
        """Whether a module outside the layers is of the list."""
        return any(_names(entry, module) for entry in self._everywhere) or any(
            expression.match(name) for expression in self._expressions for name in (module, f"model.{module}")
        )


def _one_name(name: str) -> str:
    """Shared experts have two names."""
    return name.replace("shared_experts", "shared_expert")


def _begins(rest: str, module: str) -> bool:
    """Whether a path behind a layer's number is a module's, or that of what holds it."""
    if "*" in rest:
        return fnmatchcase(module, rest) or fnmatchcase(module, f"{rest}.*")
    return not rest or module == rest or module.startswith(f"{rest}.")


def _names(entry: str, module: str) -> bool:
    """Whether a part of a path, or a pattern, is in a module's path."""
    if "*" in entry:
        return fnmatchcase(f"model.layers.0.{module}", entry) or fnmatchcase(module, entry)
    return f".{entry.removeprefix('model.').removeprefix('language_model.')}." in f".{module}."


def _is_among(layer: int, numbers: set[str]) -> bool:
    return any(number.endswith("*") and str(layer).startswith(number[:-1]) for number in numbers)


def _compiled(text: str) -> re.Pattern[str]:
    """An expression that takes polynomial time at worst: no repeated groups, and few repetitions."""
    if _REPEATED_GROUP.search(text) or len(_REPETITION.findall(text)) > MOST_REPETITIONS:
        raise ValueError(
            f"quantization_config: a regular expression repeats no group and at most {MOST_REPETITIONS} times, got "
            f"{cut(repr(text))}"
        )
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"quantization_config: {cut(repr(text))} is no regular expression: {error}") from error
