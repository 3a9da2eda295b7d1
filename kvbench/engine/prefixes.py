"""An engine's rules of blocks that requests share from their beginning, as plain functions of integers."""


def full_blocks(num_tokens: int, block_tokens: int) -> int:
    """Blocks that so many tokens fill: only these have a name, and can be found again."""
    return num_tokens // block_tokens


def most_hit_blocks(num_prompt_tokens: int, block_tokens: int) -> int:
    """Blocks of a prompt that can be taken over: never its last token's, which has to be computed for the first answer.

    Source: vLLM, KVCacheManager.get_computed_blocks.
    """
    return (num_prompt_tokens - 1) // block_tokens
