"""Which precisions an engine takes on which hardware: natively, computed in 16 bits, or not at all."""

from kvbench.engine.base import Engine
from kvbench.model.accelerator import Accelerator
from kvbench.model.model import Model

EIGHT, FOUR = ("fp8",), ("mxfp4", "nvfp4")
"""Dtypes of weights by the bits of the products that they are made for."""
KV_EIGHT, KV_FOUR = ("fp8_e4m3", "fp8_e5m2"), ("nvfp4",)


def precision_notes(engine: Engine, hardware: Accelerator, model: Model) -> tuple[str, ...]:
    """What becomes of the model's precisions on this hardware, where that is not what their names say.

    Where hardware has no products in 8 or 4 bits, vLLM and SGLang hold such weights as they are and compute in 16 bits,
    and TensorRT-LLM has no kernels. A cache of 4 bits is read by none but those of hardware that has 4 bits.

    Raises:
        ValueError: the engine has no kernels for a precision on this hardware.
    Source: vLLM 0.32, features/quantization: FP8 W8A8 (weight-only below compute capability 8.9), and its pull request
        24577 (an fp8 cache on A100); TensorRT-LLM 1.4, features/quantization (Hopper and Blackwell).
    """
    weights = {part.dtype for part in model.weights}
    kv = {group.dtype for group in model.groups if group.holds_tokens}
    lacking = {8: hardware.flops_8bit_per_s is None, 4: hardware.flops_4bit_per_s is None}
    found = []
    for bits, of_weights, of_kv in ((8, EIGHT, KV_EIGHT), (4, FOUR, KV_FOUR)):
        if not lacking[bits] or engine.name == "ideal":
            continue
        for dtype in sorted(weights & set(of_weights)):
            if engine.name == "trtllm" and dtype != "mxfp4":  # which Triton's kernels take on Hopper
                raise ValueError(_refused("model.weights_dtype", dtype, bits, engine, hardware))
            found.append(
                f"{hardware.name} states no products in {bits} bits: weights are held in {dtype} and multiplied in 16"
            )
        for dtype in sorted(kv & set(of_kv)):
            if bits == 4 or engine.name == "trtllm":  # noqa: PLR2004
                raise ValueError(_refused("model.kv_dtype", dtype, bits, engine, hardware))
            found.append(
                f"{hardware.name} states no products in {bits} bits: the cache is held in {dtype} and read into 16"
            )
    return tuple(found)


def _refused(key: str, dtype: str, bits: int, engine: Engine, hardware: Accelerator) -> str:
    allowed = "bf16, fp8_e4m3 or int8" if key == "model.kv_dtype" else "bf16, int8 or int4"
    if bits == 8:  # noqa: PLR2004
        allowed = "bf16 or int8"
    return (
        f"{key}={dtype}: {hardware.name} states no products in {bits} bits (hardware.flops_{bits}bit_per_s), and "
        f"engine={engine.name} has no other kernels for it; {allowed} would do"
    )
