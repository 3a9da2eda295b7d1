"""What fits, for people: where memory goes, how many requests that is, and the chart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from kvbench.api.fit import Fit
from kvbench.engine.capacity import CONTEXTS

if TYPE_CHECKING:
    from kvbench.charts.capacity import CapacityChart

GIB = 2**30
MEMORY = {
    "memory": "total_bytes",
    "to the engine": "budget_bytes",
    "weights": "weights_bytes",
    "activations": "activation_bytes",
    "graphs": "graphs_bytes",
    "runtime": "runtime_bytes",
    "cache": "available_bytes",
}
"""Where a rank's memory goes: what a table calls it, and the field."""
SEQUENCES = (8_192, 131_072)
NOTHING = "–"


def text_of(fit: Fit) -> str:
    """All of it, some lines a part."""
    parts = (list(part(fit)) for part in (_head, _memory, _cache, _requests, _tiers, _notes))
    return "\n\n".join("\n".join(part) for part in parts if part)


def subject_of(fit: Fit) -> str:
    """What is laid over what, by which engine."""
    of = fit.capacity
    number = of.parallel.num_accelerators
    machines = f"{number} × {of.hardware.name}" if number > 1 else of.hardware.name
    return f"{of.model.name} on {machines}{_laid(fit)}, {_engine(fit)}"


def _laid(fit: Fit) -> str:
    degrees = [f"{name} {degree}" for name, degree in asdict(fit.capacity.parallel).items() if degree > 1]
    return f" ({', '.join(degrees)})" if degrees else ""


def _subject_of_several(fit: Fit) -> str:
    number = fit.capacity.parallel.num_accelerators
    machines = f" on {number} accelerators each{_laid(fit)}" if number > 1 else ""
    return f"{fit.capacity.model.name}{machines}, {_engine(fit)}"


def _engine(fit: Fit) -> str:
    engine = fit.capacity.engine
    return f"{engine.name} {engine.version}" if engine.version else engine.name


def _head(fit: Fit) -> Iterator[str]:
    model = fit.capacity.model
    yield subject_of(fit)
    active = model.num_active_parameters
    few = f", {active:,} of them for a token" if active != model.num_parameters else ""
    weights = " and ".join(dict.fromkeys(part.dtype for part in model.weights)) or "unknown"
    cache = " and ".join(dict.fromkeys(group.dtype for group in model.groups if group.holds_tokens)) or "none"
    yield f"{model.num_parameters:,} parameters{few}; weights {weights}, cache {cache}"
    sequences = ", ".join(f"{model.held_bytes(tokens) / GIB:,.4g} GiB at {tokens:,}" for tokens in SEQUENCES)
    yield f"{model.bytes_per_token:,} bytes a token; a sequence holds {sequences} tokens"


def _memory(fit: Fit) -> Iterator[str]:
    number = fit.capacity.parallel.num_accelerators
    sizes = [getattr(fit.capacity.memory, field) for field in MEMORY.values()]
    rows = {"a rank": 1, **({f"all {number}": number} if number > 1 else {})}
    cells = [[name, *(f"{times * size / GIB:,.2f}" for size in sizes)] for name, times in rows.items()]
    return table([["GiB", *MEMORY], *cells])


def _cache(fit: Fit) -> Iterator[str]:
    of, pool = fit.capacity, fit.capacity.pool
    if not of.num_blocks:
        yield (
            f"nothing fits: {of.short_bytes / GIB:,.2f} GiB a rank are lacking for one request of "
            f"{pool.max_model_len:,} tokens"
        )
    else:
        blocks = f"{of.num_blocks:,} blocks of {pool.block_tokens:,} tokens, {pool.page_bytes:,} bytes each; "
        yield f"{blocks if pool.block_tokens > 1 else ''}{of.num_tokens:,} tokens"
        each = " a replica" if of.parallel.data > 1 else ""
        yield f"{of.max_concurrency:,.2f} requests of {pool.max_model_len:,} tokens{each} ({of.length_flag})"
        if not of.fits:
            yield (
                f"{of.engine.name} does not start so: one request takes {of.needed_bytes / GIB:,.2f} GiB a rank, and "
                f"{of.longest_tokens:,} tokens are the most that fit"
            )
    if fit.instead:
        yield f"it would fit with {', or '.join(fit.instead)}"


def _requests(fit: Fit) -> Iterator[str]:
    if not fit.capacity.num_blocks:
        return iter(())
    most = fit.capacity.pool.max_model_len
    asked = [each for each in fit.contexts if each.num_tokens <= most]
    heads = [f"{each.name} {each.num_tokens:,}" if each in fit.lengths else each.name for each in asked]
    rows: dict[str, Mapping[int, int | None]] = {fit.capacity.engine.name: fit.requests, **fit.by_strategy}
    cells = [[name, *(_count(counts[each.num_tokens]) for each in asked)] for name, counts in rows.items()]
    return table([["requests of", *heads], *cells])


def _tiers(fit: Fit) -> Iterator[str]:
    """Blocks below the device, where a strategy keeps some there."""
    for name, rooms in fit.tiers.items():
        held = (f"{tier} {room.num_blocks:,} blocks, {room.num_tokens:,} tokens" for tier, room in rooms.items())
        yield f"below the device {name} keeps on {'; on '.join(held)}"


def _count(number: int | None) -> str:
    return NOTHING if number is None else f"{number:,}"


def _notes(fit: Fit) -> Iterator[str]:
    of, pool = fit.capacity, fit.capacity.pool
    waste = pool.padding_bytes(pool.max_model_len)
    if waste:
        yield (
            f"of a request of {pool.max_model_len:,} tokens {waste / GIB:,.3g} GiB a rank are padding, which makes "
            "pages and groups equal"
        )
    for each in fit.lengths:
        if each.num_tokens > pool.max_model_len:
            yield f"the scenario's {each.name} of {each.num_tokens:,} tokens is more than is served"
    most = of.most_requests
    if most is not None and max(fit.requests.values()) > most:
        yield f"at most {most:,} requests are live at once, whatever memory holds"
    yield from (f"{name} is left out: {why.partition('; got')[0]}" for name, why in fit.refused.items())
    yield from of.notes
    yield from of.model.assumed


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows in columns, the first to the left and the others, numbers, to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        numbers = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join([f"{first:<{widths[0]}}", *numbers]).rstrip()


def compared(fits: Sequence[Fit]) -> str:
    """Several kinds of accelerators, a row each."""
    contexts = [tokens for tokens in CONTEXTS if tokens <= max(fit.capacity.pool.max_model_len for fit in fits)]
    heads = ["", "weights GiB", "cache GiB", "blocks", "tokens", *(f"{tokens:,}" for tokens in contexts)]
    rows = [
        [
            fit.name,
            f"{fit.capacity.memory.weights_bytes / GIB:,.2f}",
            f"{fit.capacity.memory.available_bytes / GIB:,.2f}",
            f"{fit.capacity.num_blocks:,}",
            f"{fit.capacity.num_tokens:,}",
            *(_count(fit.requests[tokens]) for tokens in contexts),
        ]
        for fit in fits
    ]
    return "\n".join(table([heads, *rows]))


def chart_of(fits: Sequence[Fit]) -> "CapacityChart":
    """Requests over context: of several accelerators a line each; of one, one a strategy beside the engine's."""
    from kvbench.charts.capacity import CapacityChart

    first = fits[0]
    lines: dict[str, Mapping[int, int | None]] = {fit.name: fit.requests for fit in fits}
    if len(fits) == 1:
        lines = {first.capacity.engine.name: first.requests, **first.by_strategy}
    return CapacityChart(
        lines={name: dict(sorted(counts.items())) for name, counts in lines.items()},
        max_model_len=first.capacity.pool.max_model_len,
        lengths={each.name: each.num_tokens for each in first.lengths},
        behind=first.capacity.engine.name if len(fits) == 1 else "",
        subject=subject_of(first) if len(fits) == 1 else _subject_of_several(first),
    )
