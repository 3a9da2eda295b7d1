"""docs/models.md: its list of strategies is the catalogue's, and its program runs."""

import re
from pathlib import Path

import pytest

import kvbench
from tests.support.catalogue import STRATEGIES, strategy

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_it_names_the_strategies_that_need_kvbenchs_attention():
    shown = re.findall(r"`(\w+)`", PAGE.split("<!-- needing -->")[1].split("<!-- /needing -->")[0])
    built = {name: strategy(name) for name in STRATEGIES if name != "recompute"}
    assert shown == [name for name, made in built.items() if made.signals or not made.attends_all]


@pytest.mark.slow
def test_its_program_runs(smollm2, monkeypatch, capsys):
    # The model of the session, which this program gives another attention: it is put back.
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    before = smollm2.model.config._attn_implementation
    monkeypatch.setattr(kvbench, "load_model", lambda name, device, dtype: smollm2)
    try:
        exec(compile(program, "docs/models.md", "exec"), {})
    finally:
        smollm2.model.set_attn_implementation(before)
    said, figures = capsys.readouterr().out.strip().rsplit("\n", 1)
    assert said.startswith("The sky is blue because")
    assert "num_attended=32" in figures
