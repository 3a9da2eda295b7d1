"""`kvbench record model=NAME`: run a model over a text, and save its K, V and queries for runs to append."""

from pathlib import Path
from shlex import quote
from typing import Any

from kvbench.api.recording import record
from kvbench.cli.arguments import key_values, or_none, whole_number
from kvbench.configuration.rules import NAME_OR_PATH

DEFAULTS = {"dtype": "null", "device": "auto", "layers": "all", "out": "kv.safetensors"}
KEYS = ("model", NAME_OR_PATH, "text", "tokens", *DEFAULTS)
USAGE = "python -m kvbench record model=smollm2 text=FILE tokens=1024 layers=all dtype=float32 out=kv.safetensors"
STRATEGIES = "[int8,int4,int2,int2_naive,dynamic]"


def main(arguments: list[str]) -> int:
    """Load the model, run it over the text's first tokens, write the file whole, and say how to use it.

    Raises:
        UsageError: an argument is wrong, the model or the text is missing, or what it holds cannot be recorded.
    """
    given = key_values(arguments, KEYS, ("model",), USAGE, DEFAULTS)
    model, out = given["model"], Path(given["out"]).expanduser()
    found = record(
        model,
        name_or_path=given.get(NAME_OR_PATH),
        text=given.get("text"),
        tokens=whole_number(given["tokens"]) if "tokens" in given else None,
        layers=_layers(given["layers"]),
        dtype=or_none(given["dtype"]),
        device=given["device"],
        out=out,
    )
    settings = " ".join(f"{key}={value}" for key, value in found.settings.items())
    print(
        f"{out}: K, V and queries of {len(found.tokens):,} tokens in {len(found.layers)} of "
        f"{found.geometry.num_layers} layers, {out.stat().st_size:,} bytes\n"
        f"model: {found.model}\ntext: {found.text.name} ({found.text.licence})\n"
        f"use it: python -m kvbench +scenario=short_chat model={model} {settings}{' ' * bool(settings)}"
        f"data={quote(str(out))} 'strategy={STRATEGIES}'"
    )
    return 0


def _layers(text: str) -> Any:
    """Numbers with commas between; what is none is left for the call to refuse."""
    if text == "all":
        return text
    return [whole_number(part.strip()) for part in text.strip("[]").split(",")]
