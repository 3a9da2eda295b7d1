"""How many tokens texts have: by a tokenizer's file on disk, or about, by their characters."""

from collections.abc import Callable, Sequence
from pathlib import Path

from kvbench.workload.trace_file import TraceError, TraceMissing

CHARACTERS_A_TOKEN = 4
FILE = "tokenizer.json"
ABOUT = f"tokens of texts are their characters ÷ {CHARACTERS_A_TOKEN}, rounded up: no tokenizer was named"

Counter = Callable[[Sequence[str]], list[int]]


def by_characters(texts: Sequence[str]) -> list[int]:
    """About the tokens of each text."""
    return [-(-len(text) // CHARACTERS_A_TOKEN) for text in texts]


def by_tokenizer(path: Path) -> Counter:
    """What counts the tokens of texts, by a file of the package tokenizers, or a folder with one; never by a network.

    Raises:
        TraceMissing: there is no such file.
        TraceError: it is no such file, or the package is not installed.
    """
    file = path / FILE if path.is_dir() else path
    if not file.exists():
        raise TraceMissing(f"tokenizer {file} does not exist (working directory {Path.cwd()})")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise TraceError(
            f"a tokenizer needs the package tokenizers, which could not be imported ({error}).\n"
            "  install it: python -m pip install tokenizers"
        ) from error
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises no narrower kind
        raise TraceError(f"{file} is no {FILE} of the package tokenizers: {error}") from error

    def count(texts: Sequence[str]) -> list[int]:
        return [len(encoded.ids) for encoded in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    return count
