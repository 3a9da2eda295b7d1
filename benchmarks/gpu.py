"""What one GPU says of kvbench, in at most six minutes: a folder of small text files, and a table last.

Run as `make gpu` or `python benchmarks/gpu.py [FOLDER]`; KVBENCH_GPU_DEVICE=cpu rehearses every line on a CPU.
"""

import argparse
import csv
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VARIABLE = "KVBENCH_GPU_DEVICE"
TOTAL_S = 345
"""The sum of the parts' limits; what is left of six minutes is for starting and ending."""
LONGEST = 1 << 20
"""Letters of a part's output that are kept: its end."""

Digest = Callable[[str, Path], str]
"""From a part's output and its scratch folder to a few words for the table."""


@dataclass(frozen=True)
class Part:
    """A command, and what is read off it.

    Args:
        name: of its log.
        limit_s: when it is ended.
        arguments: for this Python.
        digest: what the table says of it.
        missing: why it is skipped; "" where it is not.
        under: a program that runs this Python, and its arguments.
        environment: variables of its own.
    """

    name: str
    limit_s: float
    arguments: tuple[str, ...]
    digest: Digest
    missing: str = ""
    under: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a part ended.

    Args:
        name: the part's.
        ended: ok, skipped, or how it failed.
        took_s: wall-clock time.
        said: its digest.
    """

    name: str
    ended: str
    took_s: float
    said: str


def parts(device: str) -> list[Part]:
    """What is run on a device; on a CPU the same lines with less to do and more time for it."""
    if device == "cpu":
        little = ("model.num_layers=1", "repetitions=1", "strategy=[static,dynamic]")
        return _parts(device, little, (*little, "scenario.max_requests=2"), ("--quick",), patience=8)
    many = ("model.num_layers=8",)
    return _parts(device, many, (*many, "scenario.max_requests=20", "repetitions=2"), (), patience=1)


def _parts(
    device: str, size: tuple[str, ...], traced: tuple[str, ...], decoded: tuple[str, ...], patience: float
) -> list[Part]:
    is_gpu = device == "cuda"
    decode = (str(ROOT / "benchmarks" / "decode.py"), "--device", device, *decoded, "--only", *DECODE)
    calibrate = ("-m", "kvbench", "calibrate", "out=calibrated.yaml", f"device={device}", "dtype=bfloat16")
    probe = (str(ROOT / "benchmarks" / "probe.py"), "--device", device)
    trace = no_trace("AzureLLMInferenceTrace_conv.csv")
    test = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu")
    in_order = (*test, str(ROOT / "tests" / "test_gpu.py"), "-k", "async or hierarchical or paged")
    memory = (*test, str(ROOT / "tests" / "test_gpu.py"), "-k", "test_copies_on_the_device")
    checker = shutil.which("compute-sanitizer") or ""
    under = (checker, "--tool", "memcheck", "--error-exitcode", "1") if checker else ()
    return [
        Part("probe", 40 * patience, probe, met, environment={CUDNN: "0"}),
        Part("tests", 100 * patience, (*test, *marked()), last_line),
        Part("short_chat", 30 * patience, _run("short_chat", device, size), fastest),
        Part("chat_poisson", 20 * patience, _run("chat_poisson", device, size), fastest),
        Part("azure_conv", 25 * patience, _run("azure_conv", device, traced), fastest, trace),
        Part("decode", 35 * patience, decode, goals),
        Part("calibrate", 55 * patience, calibrate, errors),
        Part("order", 15 * patience, in_order, last_line, environment={"TORCH_CUDA_SANITIZER": "1"} if is_gpu else {}),
        Part("memory", 25 * patience, memory, checked, "" if checker else "there is no compute-sanitizer", under),
    ]


CUDNN = "TORCH_CUDNN_SDPA_DEPRIORITIZED"
"""cuDNN's attention plans anew for every length; the probe says how long that takes."""
DECODE = ("slices", "attention", "layouts", "async")


def _run(name: str, device: str, size: tuple[str, ...]) -> tuple[str, ...]:
    model = ("model=llama3_8b", "dtype=bfloat16", f"device={device}")
    return ("-m", "kvbench", f"+scenario={name}", *model, *size, "hydra.run.dir=run")


def marked() -> list[str]:
    """The test files with something for a GPU."""
    files = sorted((ROOT / "tests").glob("test_*.py"))
    return [str(path) for path in files if "pytest.mark.gpu" in path.read_text(encoding="utf-8")]


def no_trace(name: str) -> str:
    """Why a published trace cannot be read; "" where it can."""
    folder = Path(os.environ.get("KVBENCH_TRACES") or "traces")
    return "" if (folder / name).is_file() else f"KVBENCH_TRACES has no {name}"


def last_line(output: str, scratch: Path) -> str:
    """Of pytest's output, the count."""
    lines = [line.strip("= ") for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def met(output: str, scratch: Path) -> str:
    """Of the probe, what figures are read against."""
    found: dict[str, dict] = {}
    for line in output.splitlines():
        found |= json.loads(line) if line.startswith("{") else {}
    copies, marks, kernels = (found.get(name, {}) for name in ("copies", "marks", "kernels"))
    said = [f"{name} {figures['failed']}" for name, figures in found.items() if "failed" in figures]
    if "large" in copies:
        said.append(f"copy {copies['large']} TB/s, as read {copies['as_read']}")
    if "empty" in marks:
        said.append(f"a mark {marks['host']} µs, nothing between two {marks['empty']:.3g}")
    said += [f"attention {name} ms: new {times[0]}, known {times[-1]}" for name, times in _lists(kernels)]
    said += [
        f"{name} busy {figures['busy_us']:.0f} of {figures['busy_host_us']:.0f} µs"
        for name, figures in found.items()
        if "busy_us" in figures
    ]
    return "; ".join(said)


def _lists(figures: dict) -> list[tuple[str, list[float]]]:
    return [(name.replace("_", " "), times) for name, times in figures.items() if isinstance(times, list)]


def checked(output: str, scratch: Path) -> str:
    """Of compute-sanitizer, what it summed up."""
    return "; ".join(line.strip("= ") for line in output.splitlines() if "ERROR SUMMARY" in line) or last_line(
        output, scratch
    )


def fastest(output: str, scratch: Path) -> str:
    """Of a run, each strategy's time a step, or how it ended."""
    try:
        with (scratch / "run" / "summary.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return "it wrote no summary"
    return "ms a step: " + ", ".join(
        f"{row['strategy']} {float(row['step_mean_us']) / 1000:.3g}"
        if row["outcome"] == "completed"
        else f"{row['strategy']} {row['outcome']}"
        for row in rows
    )


def goals(output: str, scratch: Path) -> str:
    """Of the benchmarks, how many goals were met, and which were not."""
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in output.splitlines() if line[:1] == "|"]
    judged = [row for row in rows if {"met", "MISSED"} & set(row)]
    missed = [" ".join(row[:3]) for row in judged if "MISSED" in row]
    return f"{len(judged) - len(missed)} of {len(judged)} goals met" + (
        f"; missed: {', '.join(missed)}" if missed else ""
    )


def errors(output: str, scratch: Path) -> str:
    """Of a calibration, the errors of the model made of it."""
    return "; ".join(line for line in output.splitlines() if "mean error" in line or "NOT equal" in line)


def carry_out(part: Part, folder: Path, limit_s: float) -> Outcome:
    """Run a part in a scratch folder and keep its output; however it ends, the next one can begin."""
    if part.missing:
        (folder / f"{part.name}.log").write_text(f"skipped: {part.missing}\n", encoding="utf-8")
        return Outcome(part.name, "skipped", 0.0, part.missing)
    before = os.environ.get("PYTHONPATH")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *([before] if before else [])]),
        "PYTHONUNBUFFERED": "1",
        CUDNN: "1",
        **part.environment,
    }
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*part.under, sys.executable, *part.arguments],
                cwd=scratch,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(limit_s)
                ended = "ok" if status == 0 else f"FAILED with status {status}"
            except subprocess.TimeoutExpired:
                ended = f"ENDED after {limit_s:.0f} s"
            finally:
                _end(process)
        output = log.read_text(encoding="utf-8", errors="replace")
        said = part.digest(output, Path(scratch))
        kept = [output[-LONGEST:]]
        for name in ("run/summary.csv", "run/environment.json", "calibrated.yaml"):
            if (path := Path(scratch) / name).is_file():
                kept.append(f"== {name}\n{path.read_text(encoding='utf-8')[:LONGEST]}")
    (folder / f"{part.name}.log").write_text("\n".join(kept), encoding="utf-8")
    return Outcome(part.name, ended, time.monotonic() - start, said)


def _end(process: subprocess.Popen) -> None:
    """End a process and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def machine(device: str) -> dict[str, str]:
    """What the figures belong to."""
    import torch

    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        driver = "no nvidia-smi"
    return {
        "date": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "device": torch.cuda.get_device_name() if device == "cuda" else "a rehearsal on the CPU: no figure is a GPU's",
        "driver": driver,
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}",
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def table(about: dict[str, str], outcomes: list[Outcome]) -> str:
    """The machine, and a row a part, as Markdown."""
    lines = [f"- {key}: {value}" for key, value in about.items()]
    lines += ["", "| part | ended | s | what it says |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {each.name} | {each.ended} | {each.took_s:.0f} | {each.said.replace('|', '/')} |" for each in outcomes
    ]
    return "\n".join(lines) + "\n"


def run(chosen: list[Part], about: dict[str, str], folder: Path, total_s: float = TOTAL_S) -> int:
    """Carry parts out one after another, each within its limit and what is left of the whole's; print the table last.

    Returns:
        0 where every part that was not skipped ended well, else 1.
    """
    folder.mkdir(parents=True)
    (folder / "machine.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    until, outcomes = time.monotonic() + total_s, []
    for part in chosen:
        left_s = until - time.monotonic()
        if left_s < 1 and not part.missing:
            outcomes.append(Outcome(part.name, "NOT BEGUN", 0.0, "no time was left"))
        else:
            print(f"== {part.name}, at most {min(part.limit_s, left_s):.0f} s", flush=True)
            outcomes.append(carry_out(part, folder, min(part.limit_s, left_s)))
        (folder / "table.md").write_text(table(about, outcomes), encoding="utf-8")  # whatever comes next
    print(f"\n{table(about, outcomes)}\nfiles: {folder}", flush=True)
    return 0 if all(each.ended in ("ok", "skipped") for each in outcomes) else 1


def main() -> int:
    """Run all parts on the GPU, or say that there is none."""
    parser = argparse.ArgumentParser(description="Test and measure kvbench on one GPU, in at most six minutes.")
    parser.add_argument("folder", nargs="?", type=Path, help="a new folder; default: results/gpu/<date-time>")
    given = parser.parse_args().folder
    device = os.environ.get(VARIABLE, "cuda")
    import torch

    if device not in ("cpu", "cuda"):
        print(f"{VARIABLE} is cpu or cuda, got {device!r}", file=sys.stderr)
        return 2
    if device == "cuda" and not torch.cuda.is_available():
        print(
            f"no GPU: torch {torch.__version__} finds no CUDA device here, so that nothing was run.\n"
            f"{VARIABLE}=cpu make gpu rehearses every part on the CPU.",
            file=sys.stderr,
        )
        return 2
    folder = given or ROOT / "results" / "gpu" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    if folder.exists():
        print(f"{folder} exists already; name a new folder", file=sys.stderr)
        return 2
    total_s = TOTAL_S if device == "cuda" else math.inf
    return run(parts(device), machine(device), folder, total_s)


if __name__ == "__main__":
    sys.exit(main())
