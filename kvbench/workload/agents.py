"""Generated workloads of agents: turns with tool calls, and children whose answers their parent goes on with."""

from dataclasses import dataclass, field

import numpy as np

from kvbench.checks import check_flag, check_int, check_number
from kvbench.workload.arrivals import MAX_REQUESTS, AllAtOnce, Arrivals, check_arrivals, clients_of
from kvbench.workload.columns import sessions_of
from kvbench.workload.contents import NONE
from kvbench.workload.conversation import MAX_THINK_S, draw_think_ns
from kvbench.workload.fan_out import Rows, Tree, tree_of
from kvbench.workload.histories import TurnColumns
from kvbench.workload.lengths import (
    ConstantLength,
    Lengths,
    Lognormal,
    Uniform,
    check_counts,
    check_lengths,
    counts_of,
)
from kvbench.workload.prefixes import Begun, Prefixes, SharedPrefixes, check_prefixes
from kvbench.workload.scenario import Scenario, Workload
from kvbench.workload.trace_columns import TraceColumns

PREFIXES = SharedPrefixes(tool_tokens=ConstantLength(tokens=12_439))
TASKS, CHILD_TASKS = ConstantLength(tokens=2_400), ConstantLength(tokens=3_250)
TURNS, CHILD_TURNS = Lognormal(median=28, sigma=0.9, high=200), Lognormal(median=9, sigma=0.5)
ANSWERS, RESULTS = Lognormal(median=250, sigma=0.76), Lognormal(median=620, sigma=1.8, high=32_768)
CHILDREN = Uniform(low=1, high=2)


@dataclass(frozen=True, kw_only=True)
class Agents(Scenario):
    """Agents that call tools and wait for them, and now and then hand work to children, whose answers they go on with.

    A session begins with what `prefixes` says and a task. After each answer but the last comes a tool's result, or, by
    `fan_out_share`, children begin at once, each with a task of its own and turns with tools as its parent's; when all
    have ended, their last answers are the new tokens of their parent's next turn. Every component draws from a
    generator of its own, and the first n sessions are the same however many there are.

    Args:
        num_sessions: agents' sessions, > 0.
        arrivals: when they start.
        prefixes: system prompt, definitions of tools and documents; None: sessions share nothing.
        task_tokens: tokens that a session's task adds to that.
        num_turns: turns of an agent, its children's left out: an integer, or a distribution whose lengths count turns.
        output_tokens: tokens of each answer, with its call.
        tool_result_tokens: tokens of what a tool gives back.
        tool_s: mean of the exponential time that a tool takes, seconds, >= 0.
        fan_out_share: of an agent's turns but its last, those after which children work, 0 to 1.
        num_children: how many then, an integer or a distribution.
        num_child_turns: turns of a child, likewise.
        child_task_tokens: tokens that a child's task adds to what it begins with.
        children_share_history: a child begins with its parent's prompt and answer; or else with `prefixes` alone.
    Raises:
        ValueError: a number is out of its range, or a part is not of its kind.
    Source: 22 coding agents' sessions of callanjfox/kv-cache-tester, 772 requests. Medians, and standard deviations of
        logarithms, of definitions of tools, system prompts, tasks (a first prompt without them), turns, answers, and
        what prompts add to the one before and its answer; the mean time after a call. Of the two with children, these:
        4 fan-outs in 27 turns, 6 children, whose first prompts have a median of 11,700 tokens, 8,450 of them before
        the task. They share nothing with their parents' there.
    """

    num_sessions: int = 12
    arrivals: Arrivals = field(default_factory=AllAtOnce)
    prefixes: Prefixes | None = PREFIXES
    task_tokens: Lengths = TASKS
    num_turns: Lengths | int = TURNS
    output_tokens: Lengths = ANSWERS
    tool_result_tokens: Lengths = RESULTS
    tool_s: float = 21.5
    fan_out_share: float = 0.15
    num_children: Lengths | int = CHILDREN
    num_child_turns: Lengths | int = CHILD_TURNS
    child_task_tokens: Lengths = CHILD_TASKS
    children_share_history: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("num_sessions", self.num_sessions, 1, MAX_REQUESTS)
        check_arrivals("arrivals", self.arrivals)
        check_prefixes(self.prefixes)
        for name in ("task_tokens", "output_tokens", "tool_result_tokens", "child_task_tokens"):
            check_lengths(name, getattr(self, name))
        for name in ("num_turns", "num_children", "num_child_turns"):
            check_counts(name, getattr(self, name))
        check_number("tool_s", self.tool_s, 0, MAX_THINK_S)
        check_number("fan_out_share", self.fan_out_share, 0, 1)
        check_flag("children_share_history", self.children_share_history)

    @property
    def num_available(self) -> int:
        """See `Scenario`."""
        return self.num_sessions

    def workload(self, rng: np.random.Generator) -> Workload:
        """Draw the sessions, where no agent has children: a run takes turns that follow one another.

        Raises:
            ValueError: one has.
        """
        return Workload(sessions_of(self.columns(rng)), self.num_available, clients_of(self.arrivals))

    def columns(self, rng: np.random.Generator) -> TraceColumns:
        """Draw the sessions as columns: a session's rows lie together, children's between their parent's turns."""
        arrivals_rng, prefixes_rng, tree_rng, lengths_rng, tools_rng = rng.spawn(5)
        num = min(self.num_sessions, self.max_requests or self.num_sessions)
        tree = self._tree(num, tree_rng)
        outputs, new = self._lengths(tree, lengths_rng)
        think_ns = draw_think_ns(tree.after.size, self.tool_s, tools_rng)
        think_ns[tree.firsts] = think_ns[tree.begun] = think_ns[tree.joins] = 0
        begun = Begun() if self.prefixes is None else self.prefixes.begin(num, prefixes_rng).of_turns(tree.counts)
        after = tree.after
        if not self.children_share_history:
            after = after.copy()
            after[tree.begun] = NONE
        return TurnColumns(
            arrival_ns=np.repeat(self.arrivals.times_ns(num, arrivals_rng), tree.counts),
            sessions=np.repeat(np.arange(num), tree.counts),
            after=after,
            num_new_tokens=new,
            num_output_tokens=outputs,
            think_ns=think_ns,
            parents=tree.parents,
            parent_offsets=tree.parent_offsets,
            beginnings=begun.beginnings,
            num_clients=clients_of(self.arrivals),
            tenants=begun.tenants,
        ).columns

    def _tree(self, num_sessions: int, rng: np.random.Generator) -> Tree:
        """How many turns there are, where children work, and how many turns they have."""
        turns_rng, forks_rng, children_rng, child_turns_rng = rng.spawn(4)
        turns = counts_of(self.num_turns).draw(num_sessions, turns_rng)
        has_children = forks_rng.random(int(turns.sum())) < self.fan_out_share
        has_children[np.cumsum(turns) - 1] = False
        forks = np.flatnonzero(has_children)
        children = counts_of(self.num_children).draw(forks.size, children_rng)
        child_turns = counts_of(self.num_child_turns).draw(int(children.sum()), child_turns_rng)
        return tree_of(turns, forks, children, child_turns)

    def _lengths(self, tree: Tree, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Tokens of each answer, and those that each prompt adds."""
        tasks_rng, outputs_rng, results_rng, child_tasks_rng = rng.spawn(4)
        num_rows = tree.after.size
        outputs = self.output_tokens.draw(num_rows, outputs_rng)
        new = self.tool_result_tokens.draw(num_rows, results_rng)
        new[tree.firsts] = self.task_tokens.draw(tree.firsts.size, tasks_rng)
        new[tree.begun] = self.child_task_tokens.draw(tree.begun.size, child_tasks_rng)
        new[tree.joins] = np.bincount(tree.fans, outputs[tree.ended], tree.joins.size).astype(np.int64)
        return outputs, new
