"""Which matrix products an iteration of a model runs, as engines run them."""

from collections.abc import Sequence
from typing import NamedTuple

from kvbench.model.weights import EMBEDDING, HEAD, REPLICATED, Product, WeightPart

OUTPUTS, INPUTS, WHOLE = "outputs", "inputs", "whole"
FUSED = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "qkv_proj"),
    **dict.fromkeys(("gate_proj", "up_proj"), "gate_up_proj"),
    **dict.fromkeys(("q_a_proj", "kv_a_proj_with_mqa"), "fused_qkv_a_proj"),
    **dict.fromkeys(("in_proj_qkv", "in_proj_z"), "in_proj_qkvz"),
    **dict.fromkeys(("in_proj_b", "in_proj_a"), "in_proj_ba"),
}
"""Modules that take the same inputs, and what they are together: one product.

Source: vLLM, model_executor/models: llama.py, mixtral.py, deepseek_v2.py, qwen3_next.py (packed_modules_mapping).
"""
BY_INPUTS = ("o_proj", "out_proj", "down_proj", "x_proj")
"""Modules whose inputs lie on several ranks already: these divide, and the outputs are summed over ranks."""


class Matrix(NamedTuple):
    """A matrix that the hidden states of tokens are multiplied by, in each of the layers that have it.

    Args:
        name: its module, such as "self_attn.qkv_proj", or "lm_head".
        kind: "body", which every token passes; "experts", of which a token takes some; "head", which only those tokens
            pass whose logits are asked for.
        inputs: numbers of a token that go in, of one expert where there are several.
        outputs: numbers that come out.
        times: layers that have it.
        dtype: how it is held, one of WEIGHT_BITS.
        num_experts: of a layer, 1 but for experts.
        num_active: experts that a token takes, at most those that are here.
        cut: what tensor parallelism divides: its "outputs", its "inputs" (the ranks' outputs are summed), or nothing:
            "whole".
    """

    name: str
    kind: str
    inputs: int
    outputs: int
    times: int
    dtype: str
    num_experts: int = 1
    num_active: int = 1
    cut: str = OUTPUTS

    @property
    def num_parameters(self) -> int:
        """Of all experts in all layers."""
        return self.inputs * self.outputs * self.num_experts * self.times


def cut_of(part: WeightPart, product: Product) -> str:
    """What tensor parallelism divides of a part's product."""
    if part.split == REPLICATED:
        return WHOLE
    return INPUTS if _named(product)[1] in BY_INPUTS else OUTPUTS


def matrices_of(weights: Sequence[WeightPart]) -> tuple[Matrix, ...]:
    """The products of a model, or of a rank of one, in the order of its parts.

    Products of the same inputs are one where engines fuse them. The embedding multiplies nothing, unless it is the head
    too.
    """
    has_head = any(part.kind == HEAD and part.products for part in weights)
    found: dict[tuple[object, ...], list[tuple[WeightPart, Product]]] = {}
    for part in weights:
        if part.kind == EMBEDDING and has_head:
            continue
        for product in part.products:
            path, last = _named(product)
            alike = (path, FUSED.get(last, last), product.inputs, cut_of(part, product))
            key = (*alike, part.kind, part.layers, part.dtype, part.num_experts, part.num_active)
            found.setdefault(key, []).append((part, product))
    return _alike([_fused(members) for members in found.values()])


def _named(product: Product) -> tuple[str, str]:
    """The module's path, with its dot, and its own name; of experts all are one."""
    path, dot, last = product.module.replace("experts.0.", "experts.").rpartition(".")
    return path + dot, last


def _fused(members: list[tuple[WeightPart, Product]]) -> Matrix:
    part, first = members[0]
    path, last = _named(first)
    return Matrix(
        name=path + (FUSED[last] if len(members) > 1 else last),
        kind=HEAD if part.kind == EMBEDDING else part.kind,
        inputs=first.inputs,
        outputs=sum(product.outputs for _, product in members),
        times=part.times,
        dtype=part.dtype,
        num_experts=part.num_experts,
        num_active=part.num_active,
        cut=cut_of(part, first),
    )


def _alike(matrices: list[Matrix]) -> tuple[Matrix, ...]:
    """Those that differ in nothing but their layers are one."""
    times: dict[Matrix, int] = {}
    for matrix in matrices:
        alike = matrix._replace(times=0)
        times[alike] = times.get(alike, 0) + matrix.times
    return tuple(alike._replace(times=count) for alike, count in times.items())
