"""What pages say that commands print, where neither a clock nor a machine decides it: the commands are run."""

import re

import pytest

from tests.support.measurements import measurement
from tests.support.pages import PAGES
from tests.support.printed import arguments, cases, shown_of, write_files

CASES = list(cases())
TRACES = {"azure_conv": "AzureLLMInferenceTrace_conv.csv", "prefix_reuse": "mooncake_synthetic.jsonl"}
"""What commands read, by a word of theirs."""


@pytest.mark.parametrize(("page", "script", "shown"), CASES, ids=[arguments(script)[-1][0] for _, script, _ in CASES])
def test_a_page_shows_what_its_command_prints(kvbench, tmp_path, traces, page, script, shown):
    pytest.importorskip("numba", reason="the extra fleet is not installed")
    for name in (file for word, file in TRACES.items() if word in script):
        if not (traces / name).exists():
            pytest.skip(f"no {name} in the folder that KVBENCH_TRACES names")
    if arguments(script)[0][0] == "validate":
        measurement(arguments(script)[0][1])
    write_files(tmp_path)
    *_, last = (kvbench(*words) for words in arguments(script))
    printed = shown_of(last, shown)
    assert printed == shown, f"{page.name}: python -m tests.support.printed writes what it prints now"


def test_every_such_command_is_checked():
    shown = [
        command
        for page in PAGES
        for command in re.findall(
            r"^```sh\n((?:python .*\n)+)```\n\n```text\n", page.read_text(encoding="utf-8"), re.MULTILINE
        )
    ]
    decided = [line for line in shown if re.search(r"[ ']hardware=\[?\w+|prefix_reuse| rows=0", line)]
    assert decided == [script for _, script, _ in CASES]
    assert len(decided) == 15
