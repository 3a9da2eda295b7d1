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


def is_window_kept(number: int, prompt: int, junction: int, interval: int, window: int, block_tokens: int) -> bool:
    """Whether a block of layers with a window gets a name: where it is of a window that others may go on behind.

    Args:
        number: of the block, from 0.
        prompt: tokens of the prompt, whose last full block before its last token an equal one goes on behind.
        junction: tokens that others have begun with, too, without a window there; 0: none.
        interval: tokens between ends of windows that are named wherever they are: at most a block's, all; 0: none.
        window: of the layers.
        block_tokens: tokens of a block.
    Source: vLLM, SlidingWindowManager.reachable_block_mask, as of 0.33.
    """
    need = window_blocks(window, block_tokens)
    if interval > 0:
        segment = max(interval // block_tokens, 1)
        if number % segment >= segment - need:
            return True
    end, parting = most_hit_blocks(prompt, block_tokens), full_blocks(junction, block_tokens)
    return end - need <= number < end or parting - need <= number < parting


def last_checkpoint(num_tokens: int, block_tokens: int) -> int:
    """Where the last state lies that a request of so many tokens can go on from: at a block's end, before its last.

    Source: vLLM, get_mamba_prefill_checkpoint_position.
    """
    return most_hit_blocks(num_tokens, block_tokens) * block_tokens


def is_checkpoint(num_tokens: int, prompt: int, junction: int, interval: int, block_tokens: int) -> bool:
    """Whether the state behind so many tokens, with which a step has ended, gets a name.

    Args:
        num_tokens: of the request, with the step's.
        prompt: tokens of its prompt.
        junction: tokens that others have begun with, too, without a state there; 0: none.
        interval: tokens between states that are named wherever they are: at most a block's, all; 0: none.
        block_tokens: tokens of a block.
    Source: vLLM, MambaManager.reachable_block_mask.
    """
    if num_tokens == 0 or num_tokens % block_tokens > 0:
        return False
    if num_tokens == last_checkpoint(prompt, block_tokens) or num_tokens == junction:
        return True
    return interval > 0 and num_tokens % (max(interval // block_tokens, 1) * block_tokens) == 0


def cut_to_checkpoint(
    start: int, num_tokens: int, prompt: int, known: int, junction: int, most_tokens: int, block_tokens: int
) -> int:
    """How many of so many tokens a step computes where layers have states, which are kept at steps' ends.

    Steps of a prompt end with a block, and where it is to be gone on from; none, where the step does not reach it.

    Args:
        start: tokens that are computed.
        num_tokens: that the step has for it.
        prompt: tokens of its prompt.
        known: tokens until its next answer, those of its answer that it lost included.
        junction: as above.
        most_tokens: of a step.
        block_tokens: tokens of a block.
    Source: vLLM, Scheduler._mamba_block_aligned_split, as of 0.33.
    """
    last = max(prompt, known - 1)
    if start >= last:
        return num_tokens
    end = start + num_tokens
    if end < last:
        whole = end // block_tokens * block_tokens
        if whole > start or block_tokens <= most_tokens:
            end = whole
    stop = end
    if start % block_tokens > 0:
        stop = min(stop, (start // block_tokens + 1) * block_tokens)
    if start < last_checkpoint(known, block_tokens):
        stop = min(stop, last_checkpoint(known, block_tokens))
    if start < junction:
        stop = min(stop, junction)
    return max(stop - start, 0)
