"""What the experiment's parameters may be."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvbench.checks import check_share
from kvbench.strategy.base import require_positive

if TYPE_CHECKING:
    from kvbench.studies.quality.experiment import QualityExperiment


def check_parameters(given: "QualityExperiment") -> None:
    """Refuse parameters that are out of their range, before anything is loaded.

    Raises:
        ValueError: one is.
    """
    for name in ("text_tokens", "prefill_tokens", "needles_asked"):
        require_positive(name, getattr(given, name))
    if given.prefill_tokens >= given.text_tokens:
        raise ValueError(f"prefill_tokens is less than text_tokens ({given.text_tokens}), got {given.prefill_tokens}")
    for share in _listed("budgets", given.budgets, "share of text_tokens"):
        check_share("each of budgets", share)
    _listed("peers", given.peers, "cache of transformers'", least=0)
    for length in _listed("needle_tokens", given.needle_tokens, "length", least=0):
        require_positive("each of needle_tokens", length)
    for depth in _listed("needle_depths", given.needle_depths, "depth", least=1 if given.needle_tokens else 0):
        if isinstance(depth, bool) or not isinstance(depth, int | float) or not 0 <= depth <= 1:
            raise ValueError(f"each of needle_depths is a share from 0 to 1, got {depth!r}")
    for name in ("budgets", "needle_tokens", "needle_depths"):
        if len(set(getattr(given, name))) < len(getattr(given, name)):
            raise ValueError(f"{name} lists each once, got {list(getattr(given, name))}")
    if not isinstance(given.resume, bool):
        raise ValueError(f"resume is true or false, got {given.resume!r}")
    if given.text is not None and not isinstance(given.text, str):
        raise ValueError(f"text is a path, or null, got {given.text!r}")
    for label, strategy in given.strategies.items():
        if strategy.recomputes:
            raise ValueError(f"strategies: {label} holds nothing between steps, so that no cache can be judged")


def _listed(name: str, value: object, what: str, least: int = 1) -> Sequence[object]:
    if not isinstance(value, list | tuple) or len(value) < least:
        raise ValueError(f"{name} is a list of {'at least one' if least else 'any number of'} {what}, got {value!r}")
    return value
