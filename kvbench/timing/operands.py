"""Dtypes of products, as tables of kernels call them: what numbers take, and at which rate they are multiplied."""

from typing import NamedTuple

from kvbench.model.dtypes import WEIGHT_BITS
from kvbench.model.hardware import Hardware


class Operand(NamedTuple):
    """What a product multiplies.

    Args:
        weight_bytes: of a number of the matrix, its scales included.
        input_bytes: of a number of the tokens' as it is multiplied.
        rate: "8-bit" or "4-bit", where the machine states a rate for such floats; else that of 16 bits.
        nearest: dtypes whose measured figures stand in where there are none of this one, the first that are there.
    """

    weight_bytes: float
    input_bytes: float
    rate: str = "16-bit"
    nearest: tuple[str, ...] = ("bfloat16", "float32")

    @property
    def is_converted(self) -> bool:
        """Whether a kernel before the product makes the tokens' numbers of 16-bit ones."""
        return self.input_bytes < SIXTEEN_BITS


SIXTEEN_BITS = 2.0
RESULT_BYTES = 2.0
OPERANDS = {
    "float32": Operand(4.0, 4.0),
    "float16": Operand(SIXTEEN_BITS, SIXTEEN_BITS),
    "bfloat16": Operand(SIXTEEN_BITS, SIXTEEN_BITS),
    "fp8": Operand(1.0, 1.0, "8-bit", ("fp8_block", "bfloat16")),
    "fp8_block": Operand(1.0, 1.0, "8-bit", ("fp8", "bfloat16")),
    "int8": Operand(1.0, SIXTEEN_BITS),
    "mxfp8": Operand(float(WEIGHT_BITS["mxfp8"]) / 8, SIXTEEN_BITS),
    "w4a16_mxfp4": Operand(float(WEIGHT_BITS["mxfp4"]) / 8, SIXTEEN_BITS),
    "nvfp4": Operand(float(WEIGHT_BITS["nvfp4"]) / 8, float(WEIGHT_BITS["nvfp4"]) / 8, "4-bit", ("fp8", "bfloat16")),
}


def flops_of(hardware: Hardware, dtype: str) -> float:
    """A machine's peak rate for products of a dtype of OPERANDS."""
    operand = OPERANDS[dtype]
    stated = {"8-bit": hardware.flops_8bit_per_s, "4-bit": hardware.flops_4bit_per_s}.get(operand.rate)
    return stated or hardware.flops_per_s * min(1.0, SIXTEEN_BITS / operand.weight_bytes)
