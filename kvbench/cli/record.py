"""`kvbench record model=NAME`: run a model over a text, and save its K, V and queries for runs to append."""

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from kvbench.api.out import new_file, written
from kvbench.cli.arguments import key_values
from kvbench.configuration.errors import UsageError

if TYPE_CHECKING:
    from kvbench.integrations.models import Loaded
    from kvbench.integrations.text import Text
    from kvbench.model.geometry import KVGeometry

NAME_OR_PATH = "model.name_or_path"
DEFAULTS = {"dtype": "null", "device": "auto", "layers": "all", "out": "kv.safetensors"}
KEYS = ("model", NAME_OR_PATH, "text", "tokens", *DEFAULTS)
USAGE = "python -m kvbench record model=smollm2 text=FILE tokens=1024 layers=all dtype=float32 out=kv.safetensors"
NUM_TOKENS = 1024
SHAPE = ("num_layers", "num_heads", "num_kv_heads", "head_dim", "dtype")
CHARACTERS_A_TOKEN = 16
"""As many of the text are read at first; all of it where its tokens are longer."""
STRATEGIES = "[int8,int4,int2,int2_naive,dynamic]"


def main(arguments: list[str]) -> int:
    """Load the model, run it over the text's first tokens, write the file whole, and say how to use it.

    Raises:
        UsageError: an argument is wrong, the model or the text is missing, or what it holds cannot be recorded.
    """
    given = key_values(arguments, KEYS, ("model",), USAGE, DEFAULTS)
    out, num_tokens, layers = _out(given["out"]), _num_tokens(given), _layers(given["layers"])
    geometry, name_or_path = _model(given)
    # Imported here, so that other verbs come at once.
    from kvbench.backend.device import find_device
    from kvbench.quality.recorded import write

    try:
        device = str(find_device(given["device"]))
        loaded, text = _loaded(name_or_path, device, geometry.dtype, given.get("text"))
        from kvbench.integrations.recording import record  # with transformers, which `load_model` has found

        chosen = _chosen(layers, loaded.geometry.num_layers)
        tokens = _tokens(loaded, text, num_tokens)
        recorded = record(loaded.model, tokens, chosen)
    except ValueError as error:
        raise UsageError(str(error)) from error
    about = {"model": loaded.name, "text": text.name, "licence": text.licence, "layers": chosen}
    with written(out):
        write(out, recorded.keys, recorded.values, recorded.queries, about)
    print(
        f"{out}: K, V and queries of {len(tokens):,} tokens in {len(chosen)} of {loaded.geometry.num_layers} layers, "
        f"{out.stat().st_size:,} bytes\nmodel: {loaded.about}\ntext: {text.name} ({text.licence})\n"
        f"use it: python -m kvbench +scenario=short_chat {_overrides(given['model'], geometry, loaded)} "
        f"data={quote(str(out))} 'strategy={STRATEGIES}'"
    )
    return 0


def _out(text: str) -> Path:
    from kvbench.quality.recorded import SUFFIX

    return new_file(text, SUFFIX)


def _num_tokens(given: Mapping[str, str]) -> int | None:
    """The tokens asked for; None where it is left to what there is."""
    from kvbench.quality.recorded import LEAST_TOKENS

    text = given.get("tokens")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and int(text) >= LEAST_TOKENS):
        raise UsageError(f"tokens is a whole number of at least {LEAST_TOKENS}, got {text!r}")
    return int(text)


def _layers(text: str) -> tuple[int, ...] | None:
    """The layers asked for; None for all."""
    if text == "all":
        return None
    parts = [part.strip() for part in text.strip("[]").split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise UsageError(
            f"layers is all, or numbers from 0 with commas between, each once, such as 0,7,29; got {text!r}"
        )
    return tuple(map(int, parts))


def _chosen(layers: tuple[int, ...] | None, num_layers: int) -> list[int]:
    chosen = list(range(num_layers) if layers is None else layers)
    if max(chosen) >= num_layers:
        raise UsageError(f"layers: the model has layers 0 to {num_layers - 1}, got {max(chosen)}")
    return chosen


def _model(given: Mapping[str, str]) -> tuple["KVGeometry", str]:
    """The geometry that the model's configuration tells of, and where the model is."""
    from kvbench.cli.command_line import check, read
    from kvbench.cli.keys import check_keys, composed
    from kvbench.configuration.model import geometry_of, name_or_path_of

    with read(["+scenario=short_chat", f"model={given['model']}", f"dtype={given['dtype']}"]) as command:
        check(command)
        check_keys(command)
        config = composed(command)
    name_or_path = given.get(NAME_OR_PATH) or name_or_path_of(config)
    if not name_or_path:
        raise UsageError(
            f"model={given['model']} is a geometry without a model to be had: add {NAME_OR_PATH}=FOLDER, or take "
            "model=smollm2"
        )
    return geometry_of(config), name_or_path


def _loaded(name_or_path: str, device: str, dtype: str, text: str | None) -> tuple["Loaded", "Text"]:
    from kvbench.integrations.models import load_model
    from kvbench.integrations.text import text_of

    found = text_of(text)  # first: a model takes its time to load
    return load_model(name_or_path, device=device, dtype=dtype), found


def _tokens(loaded: "Loaded", text: "Text", asked_for: int | None) -> list[int]:
    """The text's first tokens: as many as are asked for, or else as there are, at most NUM_TOKENS."""
    from kvbench.quality.recorded import LEAST_TOKENS

    limit = getattr(loaded.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if asked_for is not None and limit is not None and asked_for > limit:
        raise UsageError(f"tokens: {loaded.name} has {limit:,} positions, got {asked_for:,}")
    most = asked_for or min(NUM_TOKENS, limit or NUM_TOKENS)
    part = text.text[: CHARACTERS_A_TOKEN * most]
    tokens = loaded.tokenizer(part, verbose=False)["input_ids"]
    if len(tokens) < most and len(part) < len(text.text):
        tokens = loaded.tokenizer(text.text, verbose=False)["input_ids"]
    least = asked_for or LEAST_TOKENS
    if len(tokens) < least:
        raise UsageError(f"tokens: the text {text.name} has {len(tokens):,}, and {least:,} are needed")
    kept: list[int] = tokens[:most]
    return kept


def _overrides(name: str, geometry: "KVGeometry", loaded: "Loaded") -> str:
    """What a run says for the model: its name, and where the model that was loaded is another than its file tells."""
    own = [
        f"model.{key}={getattr(loaded.geometry, key)}"
        for key in SHAPE
        if getattr(geometry, key) != getattr(loaded.geometry, key)
    ]
    return " ".join([f"model={name}", *own])
