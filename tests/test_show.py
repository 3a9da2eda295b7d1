"""What `kv.show` says in a program and draws in a notebook; a run's bar there."""

import io
import sys
from types import SimpleNamespace

import pytest

import kvbench as kv
from kvbench.api.progress import is_notebook, watched


@pytest.fixture(scope="module")
def results():
    priced = {"model": "llama3_8b", "hardware": "h100", "settings": {"scenario.appends": [60, 40]}}
    return kv.run("short_chat", ["dynamic", "exact"], **priced)


@pytest.fixture
def notebook(monkeypatch):
    """A notebook's kernel, and what is displayed."""
    displayed = []
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, version_info=(9, 0)))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=displayed.append))
    return displayed


def test_a_program_prints_the_table(results, capsys):
    assert not is_notebook()
    kv.show(results)
    assert "dynamic" in capsys.readouterr().out


def test_a_notebook_has_the_table_and_the_charts(results, notebook, capsys):
    kv.show(results)
    assert "dynamic" in capsys.readouterr().out
    assert len(notebook) > 2


def test_a_chart_is_shown_alone(results, notebook, capsys):
    kv.show(results, "memory")
    assert len(notebook) == 1
    assert not capsys.readouterr().out


def test_an_unknown_chart_is_named(results):
    with pytest.raises(ValueError, match=r"(?s)unknown chart 'memori'.*memory"):
        kv.show(results, "memori")


def test_a_notebook_has_a_bar(notebook, monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    with watched(10, "tokens") as advance:
        advance("dynamic", 4)
    assert "0/10" in said.getvalue()
