"""What kvbench ships of what its strategies lose. `python -m tests.support.losses` measures it anew on SmolLM2."""

import json
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version

from kvbench.configuration.catalogue import names
from kvbench.files import write_text
from kvbench.integrations.sources import PACKAGE, source_of
from kvbench.integrations.text import default_text
from kvbench.plan.area import Native
from kvbench.strategy.base import Strategy
from kvbench.strategy.fp8 import Fp8
from kvbench.strategy.paged import Paged
from kvbench.studies.quality.cells import described
from kvbench.studies.quality.losses import AMONG, SHARES, Losing, LossBook, LossUnknown
from kvbench.studies.quality.shipped import FILE
from tests.support.catalogue import strategy

MADE_BY = "python -m tests.support.losses"


def losing() -> list[Losing]:
    """What is measured: kvbench's lossy strategies as their files have them, whatever grows and wherever it is cast."""
    chosen: list[Strategy] = [strategy(name) for name in names("strategy")]
    chosen = [own for own in chosen if not own.lossless and type(own).__name__ != "Adaptive"]
    chosen += [Fp8(dtype="fp8_e5m2"), Paged(format="int8", scale="head")]
    bounded = [own for each in chosen if (own := each.within(*AMONG)) is not None]
    rounding = [Losing(own) for own in chosen if any(area.format != Native() for area in own.areas)]
    return rounding + [Losing(own, share) for share in SHARES for own in bounded]


def main() -> None:
    """Measure what is not kept from before, and write the file, a row more each time."""
    text, source = default_text(), source_of(PACKAGE)
    book = LossBook(name_or_path=PACKAGE, dtype="float32", measures=True)
    about = {
        "name_or_path": PACKAGE,
        "model_name": source.name,
        "source": f"{source.origin} ({source.licence})",
        "dtype": "float32",
        "text_name": text.name,
        "licence": text.licence,
        "sizes": vars(book.sizes),
        "measured": f"{datetime.now(UTC):%Y-%m-%d}, on a CPU ({platform.machine()}), torch {version('torch')}, "
        f"transformers {version('transformers')}",
        "made_by": MADE_BY,
    }
    rows: list[str] = []
    for own in losing():
        name, start = f"{type(own.strategy).__name__} {own.kept_share or ''}", time.perf_counter()
        try:
            figures = [float(f"{value:.5g}") for value in book.measured(own).figures]
        except LossUnknown as error:
            print(f"{name}: left out: {error}", flush=True)
            continue
        rows.append(json.dumps({"strategy": described(own.strategy), "kept_share": own.kept_share, "figures": figures}))
        head = json.dumps(about, indent=1).removesuffix("\n}")
        write_text(FILE, f'{head},\n "rows": [\n  ' + ",\n  ".join(rows) + "\n ]\n}\n")
        print(f"{name}: {figures}, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
