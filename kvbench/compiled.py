"""The one place that knows Numba, which the extra `fleet` brings: importing this says what is missing, once."""

from collections.abc import Callable
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, ParamSpec, TypeVar

try:
    from numba import cfunc, njit
except ImportError as reason:
    raise ImportError(
        f"kvbench.fleet and kvbench.fleet.prefix need Numba, which could not be imported ({reason}).\n"
        "  install it: python -m pip install numba"
    ) from reason

__all__ = ["compiled", "kernel", "part", "plain", "pointer"]

# No division by zero to look for; and no array is made, so that none needs its references counted at every call.
# Numba takes more options than its signature names.
_BARE: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
_PART = _BARE | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function of numbers and arrays, or a plain function given by another module, at its first call.

    Machine code is kept beside the function's source file. It is made anew when that file changes, but not when a
    function that it calls changes in another file.

    Args:
        function: what Numba can compile without objects.
    Returns:
        What is called like the function; its `py_func` is the function itself.
    """
    made: Callable[P, R] = njit(cache=True)(function)
    return made


def part(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that only compiled functions call. It is kept with them, never by itself."""
    made: Callable[P, R] = njit(**_PART)(function)
    return made


def plain(function: Callable[P, R]) -> Callable[P, R]:
    """Compile, as a part, a plain function of another module, with the plain functions that it calls.

    What it calls bears no name of an attribute that it reads.
    """
    made: Callable[P, R] = _plain(function)
    return made


@lru_cache(maxsize=256)
def _plain(function: FunctionType) -> Callable[..., Any]:
    known = function.__globals__
    used = {name: known[name] for name in function.__code__.co_names if name in known}
    called = {name: _plain(value) for name, value in used.items() if isinstance(value, FunctionType)}
    return part(FunctionType(function.__code__, known | called, function.__name__, function.__defaults__))


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile the function that calls parts, which makes no array. Its machine code is kept beside its source file.

    Other threads run meanwhile: it may take minutes.
    """
    made: Callable[P, R] = njit(cache=True, nogil=True, **_BARE)(function)
    return made


def pointer(function: Callable[P, int]) -> Callable[P, int]:
    """Compile a function of whole numbers so that compiled functions take it as an argument, whichever it is."""
    code: CodeType = function.__code__
    made: Callable[P, int] = cfunc(f"int64({', '.join(['int64'] * code.co_argcount)})")(function)
    return made
