"""What a modelled iteration has run so far: each step adds what the iteration takes longer by it."""

from typing import NamedTuple

from kvbench.engine.scheduling import Scheduling, chunk_tokens
from kvbench.timing.prices import of_batch


class IterationLoad(NamedTuple):
    """An iteration's steps together; of a pipeline, in a batch for each stage.

    Args:
        scheduling: how it is filled.
        num_stages: of the pipeline, or 1.
        num_tokens: of all sequences.
        most_tokens: of these, those of one sequence in one batch, at most.
        num_sequences: that get logits.
        prompts_ps: attention of prompts.
        longest_ps: of that, the most that one's in one batch takes.
    """

    scheduling: Scheduling
    num_stages: int
    num_tokens: int = 0
    most_tokens: int = 0
    num_sequences: int = 0
    prompts_ps: int = 0
    longest_ps: int = 0

    @property
    def batch_tokens(self) -> int:
        """Of the largest batch."""
        return of_batch(self.num_tokens, self.most_tokens, self.num_stages)

    @property
    def attention_ps(self) -> int:
        """Of prompts, in the largest batch."""
        return of_batch(self.prompts_ps, self.longest_ps, self.num_stages)

    def with_step(self, num_queries: int, num_rows: int) -> "IterationLoad":
        """The same with a sequence's step.

        Args:
            num_queries: its tokens.
            num_rows: of its batch.
        """
        return self._replace(
            num_tokens=self.num_tokens + num_queries * num_rows,
            most_tokens=max(self.most_tokens, self._chunk(num_queries)),
            num_sequences=self.num_sequences + num_rows,
        )

    def with_prompt(self, ps: int, num_queries: int) -> "IterationLoad":
        """The same with a prompt's attention, beside its step.

        Args:
            ps: what it takes by itself.
            num_queries: its tokens.
        """
        chunk = self._chunk(num_queries)
        own_ps = ps if chunk == num_queries else ps // num_queries * chunk
        return self._replace(prompts_ps=self.prompts_ps + ps, longest_ps=max(self.longest_ps, own_ps))

    def _chunk(self, num_queries: int) -> int:
        tokens = self.scheduling.tokens
        return (
            num_queries
            if tokens is None
            else chunk_tokens(num_queries, tokens, self.scheduling.chunks, self.num_stages)
        )
