"""Bytes of published models' caches, and the article's table of what static allocation wastes."""

from collections.abc import Iterator, Mapping

from kvbench.model.geometry import KVGeometry
from kvbench.plan.ops import append_plan
from kvbench.strategy.static import Static
from kvbench.studies.reproduce.figure import Figure
from kvbench.workload.request import Request, Session

BYTES_PER_TOKEN = {
    "llama2_7b": (524_288, "Touvron et al. 2023, arXiv:2307.09288: 2 x 32 layers x 32 heads x 128 x 2 bytes"),
    "llama3_8b": (131_072, "Llama team 2024, arXiv:2407.21783, table 3: 2 x 32 layers x 8 KV heads x 128 x 2 bytes"),
    "llama3_70b": (327_680, "Llama team 2024, arXiv:2407.21783, table 3: 2 x 80 layers x 8 KV heads x 128 x 2 bytes"),
    "qwen2_5_7b": (57_344, "Qwen team 2024, arXiv:2412.15115, table 1: 2 x 28 layers x 4 KV heads x 128 x 2 bytes"),
    "qwen3_8b": (147_456, "Qwen team 2025, arXiv:2505.09388, table 1: 2 x 36 layers x 8 KV heads x 128 x 2 bytes"),
    "deepseek_v3": (70_272, "DeepSeek-AI 2024, arXiv:2412.19437, section 4.2: 61 layers x (512 + 64) x 2 bytes"),
}
"""Bytes of a token's K and V in bfloat16, and what they follow from."""

WASTE_MAX_TOKENS = 8192
WASTE = {512: 93.8, 1024: 87.5, 2048: 75.0, 4096: 50.0}
"""The article's table (C1): percent of 8,192 slots that a sequence of so many tokens leaves empty."""


def byte_figures(geometries: Mapping[str, KVGeometry]) -> Iterator[Figure]:
    """Bytes of a token of each published model, by kvbench's own arithmetic.

    Args:
        geometries: by the names of kvbench's model files, in 16 bits; those that are not there are left out.
    """
    for name, (published, source) in BYTES_PER_TOKEN.items():
        if name not in geometries:
            continue
        ours = geometries[name].bytes_per_token
        yield Figure(
            result="KV bytes",
            quantity=f"{geometries[name].name}, a token",
            unit="bytes",
            published=published,
            ours=ours,
            goal=0,
            source=source,
        )


def waste_figures(geometry: KVGeometry) -> Iterator[Figure]:
    """The article's waste table, as the ledger books it when a static cache is filled so far."""
    strategy = Static(max_seq_len=WASTE_MAX_TOKENS)
    for num_tokens, published in WASTE.items():
        ledger = strategy.ledger(geometry)
        ledger.open(0)
        ledger.book(strategy.on_admit(0, Session(0, (Request(num_tokens),)), ledger.view))
        ledger.book(append_plan(0, num_tokens))
        yield Figure(
            result="Static waste",
            quantity=f"{num_tokens:,} of {WASTE_MAX_TOKENS:,} tokens",
            unit="%",
            published=published,
            ours=100 * (1 - ledger.used_bytes / ledger.allocated_bytes),
            goal=0.05,
            source="the article, static's waste (claim C1)",
        )
