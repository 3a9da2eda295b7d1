"""What numbers take in memory: of a cache, and of weights with their scales."""

from fractions import Fraction

from kvbench.messages import unknown

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Dtypes that a model computes in."""

SHORT = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "half": "float16", "float": "float32"}
"""Names that engines and papers use for them."""

NVFP4_BITS = 4 + Fraction(8, 16)
"""Four bits, and a scale of eight a group of sixteen."""

KV_BITS: dict[str, Fraction | int] = {
    **{name: 8 * size for name, size in DTYPE_BYTES.items()},
    "fp8_e4m3": 8,
    "fp8_e5m2": 8,
    "int8": 8,
    "nvfp4": NVFP4_BITS,
}
"""Bits of a value of K or V in a cache. One scale a tensor takes nothing that counts."""

WEIGHT_BITS: dict[str, Fraction | int] = {
    **{name: 8 * size for name, size in DTYPE_BYTES.items()},
    "fp8": 8,
    "int8": 8,
    "int4": 4 + Fraction(16, 128),
    "int4_g64": 4 + Fraction(16, 64),
    "int4_g32": 4 + Fraction(16, 32),
    "mxfp8": 8 + Fraction(8, 32),
    "mxfp4": 4 + Fraction(8, 32),
    "nvfp4": NVFP4_BITS,
}
"""Bits of a weight, those of its scales included: of int4 one of sixteen bits a group of 128 (or 64, or 32), of mxfp4
and mxfp8 one of eight a group of 32, of nvfp4 one of eight a group of 16. Of fp8 and int8 a channel's or a block's
scale takes less than 0.1 %.
"""


def kv_dtype(name: str) -> str:
    """A cache's dtype by its name or a short one.

    Raises:
        ValueError: there is none of that name.
    """
    return _named("kv_dtype", name, KV_BITS, {**SHORT, "fp8": "fp8_e4m3"})


def weights_dtype(name: str) -> str:
    """Weights' dtype by its name or a short one.

    Raises:
        ValueError: there is none of that name.
    """
    return _named("weights_dtype", name, WEIGHT_BITS, SHORT)


def _named(what: str, name: str, known: dict[str, Fraction | int], short: dict[str, str]) -> str:
    found = short.get(name, name) if isinstance(name, str) else None
    if found not in known:
        raise ValueError(unknown(what, name, [*known, *short]))
    return found
