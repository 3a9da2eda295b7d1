"""The one place that knows Numba, which the extra `fleet` brings: importing this says what is missing, once."""

from collections.abc import Callable
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, ParamSpec, TypeVar, cast

try:
    from numba import cfunc, from_dtype, njit, types
    from numba.core import cgutils
    from numba.core.typing.templates import AttributeTemplate
    from numba.extending import infer_getattr, intrinsic, lower_getattr_generic, models, register_model
except ImportError as reason:
    raise ImportError(
        f"kvbench.fleet and kvbench.fleet.prefix need Numba, which could not be imported ({reason}).\n"
        "  install it: python -m pip install numba"
    ) from reason

__all__ = ["compiled", "inlined", "kernel", "part", "plain", "pointer", "records", "referred"]

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


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a part into each that calls it: what it returns may be of records, which no call hands back."""
    made: Callable[P, R] = njit(inline="always", **_PART)(function)
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


class Referred(types.Type):
    """The type of a named tuple that is passed by its address.

    Args:
        dtype: the tuple's type.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(f"Referred({dtype})")


@register_model(Referred)
class _Address(models.PrimitiveModel):
    def __init__(self, known: Any, made: Referred) -> None:
        super().__init__(known, made, known.lookup(made.dtype).get_value_type().as_pointer())  # type: ignore[no-untyped-call]


@infer_getattr
class _Fields(AttributeTemplate):
    key = Referred

    def generic_resolve(self, made: Referred, name: str) -> Any:  # type: ignore[override]
        return made.dtype[made.dtype.fields.index(name)]


@lower_getattr_generic(Referred)  # type: ignore[untyped-decorator]
def _field(_context: Any, builder: Any, made: Referred, address: Any, name: str) -> Any:
    return builder.load(cgutils.gep_inbounds(builder, address, 0, made.dtype.fields.index(name)))


def _stored(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
    return cgutils.alloca_once_value(builder, arguments[0])


def _typed(_context: Any, made: Any) -> tuple[Any, Callable[..., Any]]:
    return Referred(made)(made), _stored


referred = cast(Callable[[Any], Any], intrinsic(_typed))
"""In compiled code, a named tuple as its address, to be read as the tuple is: a call passes each figure of a tuple, and
that takes longer than what many a part does. It lasts until the function returns that has called this."""


def records(dtype: Any) -> Callable[[int, int], Any]:
    """Take a record of a table by the table's address: parts that only some runs call cost the others no argument.

    Args:
        dtype: of a record, NumPy's.
    Returns:
        What compiled functions call with an address and a place; who calls holds the table.
    """
    record, size = from_dtype(dtype), dtype.itemsize

    def at(typing: Any, address: Any, place: Any) -> Any:
        def code(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            first, number = arguments
            own = builder.add(first, builder.mul(number, number.type(size)))
            return builder.inttoptr(own, context.get_value_type(record))

        return record(types.int64, types.int64), code

    return cast("Callable[[int, int], Any]", intrinsic(at))
