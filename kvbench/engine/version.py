"""Versions of engines, ordered."""

import re
from functools import lru_cache

_FORM = re.compile(r"(\d+(?:\.\d+)*)(?:(a|b|rc)(\d+))?(?:\.post(\d+))?(?:\.dev(\d+))?(?:\+.*)?")
_STAGE = {"a": -3, "b": -2, "rc": -1, None: 0}
_RELEASED = 2**31


@lru_cache(maxsize=256)
def key_of(version: str) -> tuple[tuple[int, ...], int, int, int, int]:
    """What orders versions: 0.20.1 < 0.20.2rc1.dev129 < 0.20.2rc1 < 0.20.2.

    Raises:
        ValueError: it is no version.
    """
    found = _FORM.fullmatch(version.strip().removeprefix("v"))
    if found is None:
        raise ValueError(f"engine.version is a version such as 0.20.2 or 0.21.0rc1, got {version!r}")
    numbers, stage, number, post, dev = found.groups()
    release = tuple(int(each) for each in numbers.split("."))
    while release and release[-1] == 0:
        release = release[:-1]
    before = -4 if stage is None and dev is not None and post is None else _STAGE[stage]
    return release, before, int(number or 0), int(post or 0), int(dev) if dev is not None else _RELEASED


def since(version: str, first: str) -> bool:
    """Whether a version is the first that has something, or a later one."""
    return key_of(version) >= key_of(first)
