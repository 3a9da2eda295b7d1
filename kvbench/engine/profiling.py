"""What an engine's step of dummy requests takes at its peak, and what its graphs take: sizes of buffers, summed."""

from kvbench.model.dtypes import DTYPE_BYTES
from kvbench.model.groups import LATENT
from kvbench.model.model import Model
from kvbench.model.weights import EMBEDDING, EXPERTS, HEAD, WeightPart

MIB = 2**20
EXPERT_CHUNK_TOKENS = 32_768
"""Tokens that a layer of experts takes at once (VLLM_FUSED_MOE_CHUNK_SIZE)."""
LATENT_WORKSPACE_TOKENS = 65_536
LATENT_HEAD_WIDTH = 256
"""K and V of a head that a latent is taken to: 128 and 128 in DeepSeek's; a configuration may have more."""
GRAPH_FIRST_BYTES, GRAPH_LAYER_BYTES = 150 * MIB, MIB // 10
"""Of the first graph of a kind, and of each further one a layer. Fitted to the estimates that vLLM 0.21 and later print
for six models (0.07 to 1.55 GiB): within 0.75 GiB of each; of 80 layers of experts it printed 2.75, here 0.97.
"""


def body_bytes(rank: Model, num_tokens: int) -> int:
    """The most that layers hold at once in a step of so many tokens, outside of weights and cache.

    In a feed-forward part these are the gate and the up product, what becomes of both, and three hidden states: the
    residual, its norm, and the output.

    Source: vLLM, model_executor/models/llama.py and layers/fused_moe/fused_moe.py. Of Llama-3.1-8B at 20,000 and
        29,000 tokens it is 2.06 and 2.99 GiB; vLLM 0.6.4 printed 2.07 and 2.99.
    """
    size = DTYPE_BYTES[rank.dtype]
    hidden = 3 * rank.hidden_size * num_tokens
    dense = 3 * rank.intermediate_size * num_tokens
    experts = max((_expert_values(rank, num_tokens, part) for part in rank.weights), default=0)
    return size * (hidden + max(dense, experts)) + _latent_bytes(rank, num_tokens)


def expert_width(part: WeightPart, hidden_size: int) -> int:
    """Of one expert, gate and up and down; 0 of what is none."""
    return part.num_parameters // (3 * hidden_size) if part.kind == EXPERTS and hidden_size else 0


def _expert_values(rank: Model, num_tokens: int, part: WeightPart) -> int:
    """Gate and up of each expert of each token, in whose place their outputs come, and what becomes of both."""
    width = expert_width(part, rank.hidden_size)
    each = max(2 * width, rank.hidden_size) + width if width else 0
    return min(num_tokens, EXPERT_CHUNK_TOKENS) * part.num_active * each


def _latent_bytes(rank: Model, num_tokens: int) -> int:
    """K and V that a chunk of a long context's latents is taken to."""
    heads = max((group.num_heads for group in rank.groups if group.kind == LATENT), default=0)
    tokens = min(max(8 * (rank.max_tokens or 0), num_tokens), LATENT_WORKSPACE_TOKENS)
    return DTYPE_BYTES[rank.dtype] * tokens * heads * LATENT_HEAD_WIDTH


def sampler_bytes(rank: Model, num_seqs: int, num_tokens: int, bytes_per_logit: int) -> int:
    """What sampling takes beside the hidden states of the step that it ends; nothing where the rank has no head."""
    if rank.weights and not any(part.kind in (EMBEDDING, HEAD) for part in rank.weights):
        return 0
    hidden = DTYPE_BYTES[rank.dtype] * rank.hidden_size * num_tokens
    return min(num_seqs, num_tokens) * rank.vocab_size * bytes_per_logit + hidden


def graph_sizes(largest: int) -> int:
    """How many sizes of batches graphs are captured for: 1, 2, 4, each 8 up to 256, each 16 beyond.

    Source: vLLM, vllm/config/vllm.py (_set_cudagraph_sizes): 51 up to 512, 35 up to 256, as its lines count them.
    """
    small = sum(size <= largest for size in (1, 2, 4))
    return small + min(largest, 255) // 8 + (0 if largest < 256 else (largest - 256) // 16 + 1)  # noqa: PLR2004


def graphs_bytes(rank: Model, num_seqs: int) -> int:
    """What graphs take: of pieces up to twice the sequences or 512 tokens, and of whole decode steps."""
    further = graph_sizes(min(2 * num_seqs, 512)) + graph_sizes(min(num_seqs, 512)) - 2
    return 2 * GRAPH_FIRST_BYTES + max(further, 0) * rank.num_layers * GRAPH_LAYER_BYTES
