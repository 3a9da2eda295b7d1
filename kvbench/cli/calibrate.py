"""`kvbench calibrate`: measure this machine, or fit one to a table of kernels, and hold that against further rows."""

from pathlib import Path

from kvbench.api.calibrating import TABLE_SUFFIX, calibrate
from kvbench.api.calibrating_from import KernelCalibration, calibrate_from
from kvbench.cli.arguments import key_values, or_none
from kvbench.configuration.errors import UsageError

DEFAULTS = {"model": "article", "dtype": "null", "device": "auto"}
OF_TABLES = ("hardware",)
KEYS = ("out", "from", *DEFAULTS, *OF_TABLES)
USAGE = "python -m kvbench calibrate out=mine.yaml model=article dtype=float32 device=auto"
TABLE_USAGE = "python -m kvbench calibrate from=h100_vllm.parquet hardware=h100 out=mine.yaml"


def main(arguments: list[str]) -> int:
    """Measure or fit, validate, write the hardware file whole, and print errors.

    Returns:
        0; 1 where bytes, slots or resizes of the model are not those that were measured.
    Raises:
        UsageError: an argument is wrong, there is no such device or file, or memory does not last.
    """
    asked = key_values(arguments, KEYS, (), f"{USAGE}, or {TABLE_USAGE}", {})
    return _fitted(asked) if "from" in asked else _measured(arguments, asked)


def _measured(arguments: list[str], asked: dict[str, str]) -> int:
    for key in OF_TABLES:
        if key in asked:
            raise UsageError(f"{key}=… goes with from=TABLE; for example: {TABLE_USAGE}")
    given = key_values(arguments, KEYS, ("out",), USAGE, DEFAULTS)
    model, out = given["model"], Path(given["out"]).expanduser()
    found = calibrate(model, dtype=or_none(given["dtype"]), device=given["device"], out=out)
    print("".join(f"{name} is left out: {why}\n" for name, why in found.left_out.items()), end="")
    print(f"{found.hardware.name}; {found.hardware.source}\n\n{found.text}\n")
    if found.kernel_fit is not None:
        print(f"{KernelCalibration(*found.kernel_fit).text}\n")
    print(
        f"hardware file: {out}, its kernels: {out.with_suffix(TABLE_SUFFIX)}; price plans on it: python -m kvbench "
        f"+scenario=short_chat backend=modelled hardware={_shown(out)} cache_only=true model={model}; a whole model, "
        "one that has num_parameters: without cache_only=true"
    )
    return 0 if found.is_exact else 1


def _fitted(asked: dict[str, str]) -> int:
    for key in DEFAULTS:
        if key in asked:
            raise UsageError(f"{key}=… is of a machine that is measured here, not of from=TABLE: leave it out")
    out = asked.get("out")
    found = calibrate_from(asked["from"], hardware=asked.get("hardware"), out=out)
    print(f"{found.hardware.name}, by {asked['from']}\n\n{found.text}")
    if out is not None:
        print(f"hardware file: {out}; use it: hardware={_shown(Path(out).expanduser())}")
    return 0


def _shown(out: Path) -> str:
    return str(out if out.is_absolute() or out.parts[0] == ".." else f"./{out}")
