"""The public call that holds what kvbench says against what others measured and printed."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from kvbench.api.held_file import HeldFile, check_key, held_file
from kvbench.api.printed_lines import PrintedLines, printed_lines
from kvbench.api.validation import Validation
from kvbench.calibration.validation.conditions import conditions_of
from kvbench.calibration.validation.recognised import LINES, form_of
from kvbench.configuration.errors import UsageError, refusing

if TYPE_CHECKING:
    from kvbench.model.hardware import Hardware


def validate(
    *paths: str | PathLike[str],
    configs: str | PathLike[str] | None = None,
    hardware: "str | PathLike[str] | Mapping[str, object] | Hardware | None" = None,
    model: "str | PathLike[str] | None" = None,
    engine: str | None = None,
    inputs: str | PathLike[str] | None = None,
    concurrency: int | None = None,
    rate: float | None = None,
    replays: int | None = None,
    fail_if: str | None = None,
    settings: Mapping[str, object] | None = None,
) -> Validation:
    """Hold what kvbench says against measurements that others published, as `python -m kvbench validate FILE…` does.

    What a file is, is told by what is in it: a table (Parquet or CSV) of kernels' times, of calls of mixed attention,
    of end-to-end measurements, or of lines that engines printed at their start; a log of requests; what `vllm bench
    serve`, SGLang's bench_serving, GuideLLM, AIPerf or GenAI-Perf wrote. What a file does not say is told by the
    arguments here, which go before what it says, by a FILE.yaml beside it with the same keys, or by a name like
    h100_vllm.parquet.

    Args:
        paths: files of measurements, at least one.
        configs: for printed lines, a folder of models' published configurations, config.json in a folder a model; None:
            `configs` beside the table, where there is one. Of models that it lacks, kvbench's own are at hand.
        hardware: what times are of: a name, such as "h100", a YAML file, or a machine.
        model: what was served: a name, such as "llama3_8b", a config.json, its folder, or a YAML file.
        engine: what served it: "vllm", "sglang", "trtllm" or "ideal".
        inputs: of a log of requests, the arrivals and lengths of all requests of the run, CSV; None: NAME_inputs.csv
            beside it, where there is one.
        concurrency: of a benchmark's run, clients that each send their next request when their last one has ended.
        rate: of a benchmark's run, requests a second.
        replays: simulations with other times of work, from which intervals of served requests come; None: 32; 0: none.
        fail_if: conditions with commas between them, such as "mape>0.1,gemm.held_out.bias>5%"; `failed` says which
            hold. A measure is mape, bias, median, worst or coverage; what stands before it names rows.
        settings: further keys of the command line, such as {"engine.max_num_seqs": 64, "parallel.tensor": 2}.
    Returns:
        Every published figure beside ours: `rows`, what they come to (`errors`, `groups`), and what could not be said;
        `text`, `as_dict()` and `chart` show it. Of printed lines `lines` and `agreement`.
    Raises:
        ValueError: there is no such file or folder, a file is broken, or it is not said of what it is.
    """
    if not paths:
        raise UsageError("validate takes files of measurements, got none")
    with refusing():
        conditions = conditions_of(fail_if) if fail_if else ()
        lines: list[PrintedLines] = []
        files: list[HeldFile] = []
        asked: dict[str, object] = {"hardware": hardware, "model": model, "engine": engine, "inputs": inputs}
        asked |= {"concurrency": concurrency, "rate": rate, "replays": replays, **(settings or {})}
        for key in asked:
            check_key("", key)
        for path in (Path(each).expanduser() for each in paths):
            form = form_of(path)
            if form == LINES:
                lines.append(printed_lines(path, None if configs is None else Path(configs).expanduser()))
            else:
                files.append(held_file(path, form, asked))
        return Validation(printed=tuple(lines), files=tuple(files), conditions=conditions)
