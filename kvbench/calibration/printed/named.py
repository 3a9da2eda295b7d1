"""Which of the models and machines that are at hand a printed line names, and which precision of weights."""

import re
from collections.abc import Iterable, Mapping

from kvbench.calibration.capacity_rows import GIB, Row, parallel_of_row
from kvbench.model.accelerator import Accelerator
from kvbench.model.dtypes import kv_dtype
from kvbench.model.model import Model
from kvbench.model.precision import in_precision
from kvbench.model.ranks import rank_of

SAME_LAYERS = {"meta-llama-3.1": "llama-3.1", "llama-3.3-70b": "llama-3.1-70b"}
"""Models that have another's layers and widths, by what their names begin with."""
VARIANT = re.compile(r"[-_ ](instruct|it|base|chat|thinking|hf|fp8|bf16|\d+k|v0[\d.]*)$")
MOST_DIFFERENCE = 0.1
"""Between a configuration's bytes a token and the table's: a drafter's layer is within it, another model is not."""
PRECISIONS = (
    ("int4", r"int4|awq|gptq|4-bit|w4a16"),
    ("int8", r"int8|w8a8|q8_0"),
    ("nvfp4", r"nvfp4"),
    ("mxfp4", r"mxfp4|\bfp4"),
    ("fp8", r"fp8"),
    ("bfloat16", r"bfloat16|bf16"),
    ("float16", r"(?<!b)float16|fp16"),
)


def model_of(row: Row, models: Mapping[str, Model]) -> tuple[str, Model] | None:
    """The model at hand that a line names, of the longest name that it has.

    Args:
        row: the line.
        models: those at hand, by their names.
    Returns:
        Its name, and itself; None: none of those, or none whose bytes a token are the table's.
    """
    text = re.sub(r"\s+", "-", row["model"].lower())
    same = text
    for name, other in SAME_LAYERS.items():
        same = same.replace(name, other)
    # Of two of a name, the one that says more of itself.
    names = sorted(models, key=lambda name: (-len(_plain(name)), not models[name].vocab_size))
    for called in (text, same):
        for name in names:
            if re.search(rf"(?<![a-z0-9.]){re.escape(_plain(name))}(?![a-z0-9.])", called) and _agrees(
                row, models[name]
            ):
                return name, models[name]
    return None


def _plain(name: str) -> str:
    """A model's name without who published it and what it was trained to do."""
    name = re.split(r"/|--", name.lower())[-1].replace(" ", "-")
    while VARIANT.search(name):
        name = VARIANT.sub("", name)
    return name


def _agrees(row: Row, model: Model) -> bool:
    if not row["config_bytes_per_token"]:
        return True
    cache = re.match(r"fp8_e5m2|fp8_e4m3|fp8(?!_)", row["kv_dtype"])
    try:
        parallel = parallel_of_row(row)
        rank = rank_of(in_precision(model, kv=kv_dtype(cache[0]) if cache else None), parallel)
    except ValueError:
        return False
    own = rank.bytes_per_token / parallel.decode_context
    return abs(own / float(row["config_bytes_per_token"]) - 1) < MOST_DIFFERENCE


def accelerator_of(row: Row, accelerators: Mapping[str, Accelerator]) -> Accelerator | None:
    """The accelerator that a line names, with the memory that it printed; None: not at hand, and not printed."""
    # "80 GB class" is what somebody guessed.
    found = None if "class" in row["hardware"] else _named(row["hardware"], accelerators)
    if not row["gpu_memory_gib"]:
        return found
    name = found.name if found else row["hardware"] or "an accelerator"
    return Accelerator(name=name, memory_bytes=int(float(row["gpu_memory_gib"]) * GIB))


def _named(hardware: str, accelerators: Mapping[str, Accelerator]) -> Accelerator | None:
    words = set(_runs(re.findall(r"[a-z0-9]+", hardware.lower())))
    names = [name for name in accelerators if tuple(name.split("_")) in words]
    found = accelerators[max(names, key=len)] if names else None
    # An H100 of 94 GB and a modified RTX 4090 of 48 GB have memories of their own.
    stated = re.search(r"(\d+) ?GB", hardware)
    if found and stated and abs(found.memory_bytes / (int(stated[1]) * GIB) - 1) > MOST_DIFFERENCE:
        return None
    return found


def _runs(words: list[str]) -> Iterable[tuple[str, ...]]:
    """Words, and words that follow each other."""
    for first in range(len(words)):
        for last in range(first, len(words)):
            yield tuple(words[first : last + 1])


def weights_dtype_of(text: str) -> str | None:
    """Precision of weights; None where it is not said, or is of several."""
    found = [name for name, words in PRECISIONS if re.search(words, text.lower())]
    return found[0] if len(found) == 1 else None
