"""An engine's rules of blocks that requests share from their beginning, as plain functions of integers."""


def full_blocks(num_tokens: int, block_tokens: int) -> int:
    """Blocks that so many tokens fill: only these have a name, and can be found again."""
    return num_tokens // block_tokens


def most_hit_blocks(num_prompt_tokens: int, block_tokens: int) -> int:
    """Blocks of a prompt that can be taken over: never its last token's, which has to be computed for the first answer.

    Source: vLLM, KVCacheManager.get_computed_blocks.
    """
    return (num_prompt_tokens - 1) // block_tokens


def window_blocks(window: int, block_tokens: int) -> int:
    """Blocks without a gap that layers with a window need where a sequence is to go on: those of the tokens before.

    Source: vLLM, SlidingWindowManager.find_longest_cache_hit.
    """
    return max(-(-(window - 1) // block_tokens), 1)


def left_blocks(num_tokens: int, window: int, block_tokens: int) -> int:
    """Blocks at the front of so many tokens that no token to come looks at.

    Source: vLLM, SlidingWindowManager.get_num_skipped_tokens.
    """
    return max(num_tokens - window + 1, 0) // block_tokens


def most_window_blocks(window: int, step_tokens: int, most_tokens: int, block_tokens: int) -> int:
    """Blocks that layers with a window are taken to hold at most, where a whole prompt is to fit.

    Args:
        window: of the layers.
        step_tokens: computed at once, at most.
        most_tokens: of the longest sequence.
        block_tokens: tokens of a block.
    Source: vLLM, SlidingWindowSpec.max_admission_blocks_per_request.
    """
    return -(-min(window - 1 + step_tokens, most_tokens) // block_tokens) + 1
