"""`kvbench calibrate out=FILE`: measure this machine, and hold a model made of that against further runs."""

from pathlib import Path

from kvbench.api.calibrating import calibrate
from kvbench.cli.arguments import key_values, or_none

DEFAULTS = {"model": "article", "dtype": "null", "device": "auto"}
KEYS = ("out", *DEFAULTS)
USAGE = "python -m kvbench calibrate out=mine.yaml model=article dtype=float32 device=auto"


def main(arguments: list[str]) -> int:
    """Measure, validate, write the hardware file whole, and print errors beside noise.

    Returns:
        0; 1 where bytes, slots or resizes of the model are not those that were measured.
    Raises:
        UsageError: an argument is wrong, there is no such device, or memory does not last.
    """
    given = key_values(arguments, KEYS, ("out",), USAGE, DEFAULTS)
    model, out = given["model"], Path(given["out"]).expanduser()
    found = calibrate(model, dtype=or_none(given["dtype"]), device=given["device"], out=out)
    path = out if out.is_absolute() or out.parts[0] == ".." else f"./{out}"
    print("".join(f"{name} is left out: {why}\n" for name, why in found.left_out.items()), end="")
    print(
        f"{found.hardware.name}; {found.hardware.source}\n\n{found.text}\n"
        f"hardware file: {out}; price plans on it: python -m kvbench +scenario=short_chat backend=modelled "
        f"hardware={path} cache_only=true model={model}"
    )
    return 0 if found.is_exact else 1
