"""What pages say that code knows: tables and the public names. `python -m tests.support.generated` writes it anew."""

import re
import textwrap
from pathlib import Path

from kvbench.api.describing import described
from kvbench.cli.strategies import markdown_table as strategies_table
from kvbench.configuration.catalogue import names
from kvbench.configuration.chosen import scenario_of
from kvbench.configuration.composed import composed
from kvbench.configuration.entry import entries
from kvbench.results.schema import markdown_table as metrics_table
from kvbench.workload.trace import Trace
from kvbench.workload.trace_formats import markdown_table as traces_table
from tests.support.api import api_text
from tests.support.pages import PAGES, blocks, text_of
from tests.support.trace_examples import pages_text as trace_examples

PAGE_WIDTH = 130
DATED = re.compile(r"output of (\d{4}-\d\d-\d\d)")


def outputs_table() -> str:
    """Commands whose output is of a day: pages mark them."""
    rows = ["| command | output of | page |", "| --- | --- | --- |"]
    for page in PAGES:
        for block in blocks(page, "sh"):
            if found := DATED.fullmatch(block.marker):
                *_, last = block.text.replace("\\\n   ", "").splitlines()
                rows.append(f"| `{last.replace('|', chr(92) + '|')}` | {found[1]} | [{page.name}]({page.name}) |")
    return "\n".join(rows)


def models_list() -> str:
    """Names of kvbench's own models."""
    return textwrap.fill(", ".join(names("model")), PAGE_WIDTH)


def scenarios_table() -> str:
    """What scenarios hold that need no file, drawn with the default seed."""
    rows = [
        "| scenario | sessions | requests | tokens of whole prompts | there before | of first prompts, shared |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in names("scenario"):
        config = composed({"scenario": name})
        if not isinstance(scenario_of(config), Trace):
            of = described(name, config).numbers
            shares = (f"{of[share]:.0%}" for share in ("repeated_prompt_share", "shared_prefix_share"))
            counts = (f"{of[count]:,}" for count in ("num_sessions", "num_requests", "whole_prompt_tokens"))
            rows.append(f"| `{name}` | {' | '.join([*counts, *shares])} |".replace("%", " %"))
    return "\n".join(rows)


PARTS = {
    "strategies": lambda: strategies_table(entries()),
    "metrics": metrics_table,
    "api": api_text,
    "outputs": outputs_table,
    "models": models_list,
    "scenarios": scenarios_table,
    "traces": traces_table,
    "trace_examples": trace_examples,
}
"""What stands between `<!-- NAME -->` and `<!-- /NAME -->`, by name."""


def rewritten(page: Path) -> str:
    """A page with its parts as they are now."""
    text = text_of(page)
    for name, part in PARTS.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if start in text:
            before, _, rest = text.partition(start)
            text = f"{before}{start}\n{part()}\n{end}{rest.partition(end)[2]}"
    return text


def main() -> None:
    """Write all pages anew."""
    for page in PAGES:
        page.write_text(rewritten(page), encoding="utf-8")


if __name__ == "__main__":
    main()
