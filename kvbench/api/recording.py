"""The public call that saves a real model's K, V and queries on a text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Literal

from kvbench.api.out import new_file, written
from kvbench.checks import check_int
from kvbench.configuration.composed import composed
from kvbench.configuration.errors import UsageError, refusing

if TYPE_CHECKING:
    from kvbench.integrations.models import Loaded
    from kvbench.integrations.recording import Recorded
    from kvbench.integrations.text import Text
    from kvbench.model.geometry import KVGeometry

NUM_TOKENS = 1024
SHAPE = ("num_layers", "num_heads", "num_kv_heads", "head_dim", "dtype")
CHARACTERS_A_TOKEN = 16
"""As many of the text are read at first; all of it where its tokens are longer."""


@dataclass(frozen=True)
class ModelRecording:
    """K, V and queries of a model on a text.

    Args:
        tensors: keys and values [layers, num_kv_heads, tokens, head_dim], queries [layers, num_heads, tokens,
            head_dim].
        tokens: numbers of the vocabulary.
        layers: those that were recorded, in the tensors' order.
        geometry: of the whole model.
        settings: what a run of the model's name sets, where the model that was loaded is another than its file tells.
        model: what was loaded, for people.
        text: what it was run over.
    """

    tensors: "Recorded"
    tokens: Sequence[int]
    layers: Sequence[int]
    geometry: "KVGeometry"
    settings: Mapping[str, object]
    model: str
    text: "Text"


def record(
    model: "str | PathLike[str] | Mapping[str, object] | KVGeometry",
    *,
    name_or_path: str | PathLike[str] | None = None,
    text: str | PathLike[str] | None = None,
    tokens: int | None = None,
    layers: Sequence[int] | Literal["all"] = "all",
    dtype: str | None = None,
    device: str = "auto",
    out: str | PathLike[str] | None = None,
) -> ModelRecording:
    """Run a real model over a text and save its K, V and queries, as `python -m kvbench record model=…` does.

    Args:
        model: a name, such as "smollm2", a YAML file, a shape, or its keys.
        name_or_path: where the model itself is, as in `load_model`; None: where its file says.
        text: a file in UTF-8; None: the prose that every Python carries.
        tokens: how many of the text's first ones, 2 or more; None: as many as there are, at most 1,024.
        layers: which, from 0, each once, or "all".
        dtype: float32, float16 or bfloat16; None: the model's.
        device: auto, cpu or cuda.
        out: a new file, whose name ends in .safetensors, for `data` of a run; None: nothing is written.
    Returns:
        The `tensors` (keys and values [layers, num_kv_heads, tokens, head_dim], queries [layers, num_heads, tokens,
        head_dim]), their `tokens` and `layers`, the `geometry`, `model` and `text` that they are of, and `settings`:
        what a run of that name sets to be of that geometry.
    Raises:
        ValueError: an argument is wrong, the model or the text is missing, or what it holds cannot be recorded;
            nothing is written.
    """
    from kvbench.backend.device import find_device
    from kvbench.integrations.models import load_model
    from kvbench.integrations.text import text_of
    from kvbench.quality.recorded import LEAST_TOKENS, SUFFIX, write

    path = None if out is None else new_file(out, SUFFIX)
    if tokens is not None:
        with refusing():
            check_int("tokens", tokens, LEAST_TOKENS)
    _check_layers(layers)
    configured, where = _model(model, dtype, name_or_path)
    with refusing():
        on = str(find_device(device))
        read = text_of(None if text is None else str(text))  # first: a model takes its time to load
        loaded = load_model(where, device=on, dtype=configured.dtype)
        from kvbench.integrations.recording import record  # with transformers, which `load_model` has found

        chosen = _chosen(layers, loaded.geometry.num_layers)
        numbers = _tokens(loaded, read, tokens, LEAST_TOKENS)
        tensors = record(loaded.model, numbers, chosen)
    if path is not None:
        about = {"model": loaded.name, "text": read.name, "licence": read.licence, "layers": chosen}
        with written(path):
            write(path, tensors.keys, tensors.values, tensors.queries, about)
    settings = _settings(configured, loaded.geometry)
    return ModelRecording(tensors, numbers, chosen, loaded.geometry, settings, loaded.about, read)


def _check_layers(layers: object) -> None:
    if layers == "all":
        return
    found = list(layers) if isinstance(layers, Sequence) else []
    if not found or not all(type(each) is int and each >= 0 for each in found) or len(set(found)) < len(found):
        raise UsageError(f"layers is all, or numbers from 0, each once, such as 0,7,29; got {layers!r}")


def _chosen(layers: Sequence[int] | Literal["all"], num_layers: int) -> list[int]:
    chosen = list(range(num_layers)) if isinstance(layers, str) else list(layers)
    if max(chosen) >= num_layers:
        raise UsageError(f"layers: the model has layers 0 to {num_layers - 1}, got {max(chosen)}")
    return chosen


def _model(model: object, dtype: str | None, name_or_path: str | PathLike[str] | None) -> tuple["KVGeometry", str]:
    """The geometry that the model's configuration tells of, and where the model is."""
    from kvbench.configuration.model import geometry_of, name_or_path_of

    config = composed({"model": model}, settings={"dtype": dtype})
    geometry, where = geometry_of(config), name_or_path or name_or_path_of(config)
    if not where:
        named = model if isinstance(model, str | PathLike) else geometry.name
        raise UsageError(
            f"model={named} is a geometry without a model to be had: add model.name_or_path=FOLDER (from Python "
            "name_or_path), or take model=smollm2"
        )
    return geometry, str(where)


def _tokens(loaded: "Loaded", text: "Text", asked_for: int | None, least: int) -> list[int]:
    """The text's first tokens: as many as are asked for, or else as there are, at most NUM_TOKENS."""
    limit = getattr(loaded.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if asked_for is not None and limit is not None and asked_for > limit:
        raise UsageError(f"tokens: {loaded.name} has {limit:,} positions, got {asked_for:,}")
    most = asked_for or min(NUM_TOKENS, limit or NUM_TOKENS)
    part = text.text[: CHARACTERS_A_TOKEN * most]
    tokens = loaded.tokenizer(part, verbose=False)["input_ids"]
    if len(tokens) < most and len(part) < len(text.text):
        tokens = loaded.tokenizer(text.text, verbose=False)["input_ids"]
    needed = asked_for or least
    if len(tokens) < needed:
        raise UsageError(f"tokens: the text {text.name} has {len(tokens):,}, and {needed:,} are needed")
    kept: list[int] = tokens[:most]
    return kept


def _settings(configured: "KVGeometry", loaded: "KVGeometry") -> dict[str, object]:
    """What a run sets, where the model that was loaded is another than its file tells."""
    told, found = configured.plain, loaded.plain
    return {f"model.{key}": getattr(found, key) for key in SHAPE if getattr(told, key) != getattr(found, key)}
