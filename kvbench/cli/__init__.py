"""The command line: compose, build, run, write. With __main__.py, the only place that knows Hydra."""

VERBS = {
    "scenarios": "kvbench.cli.scenarios",
    "strategies": "kvbench.cli.strategies",
    "metrics": "kvbench.cli.metrics",
    "capacity": "kvbench.cli.capacity",
    "train": "kvbench.cli.train",
    "calibrate": "kvbench.cli.calibrate",
    "record": "kvbench.cli.record",
    "validate": "kvbench.cli.validate",
    "compare": "kvbench.cli.compare",
    "rate": "kvbench.cli.rate",
    "tune": "kvbench.cli.tune",
    "recommend": "kvbench.cli.recommend",
    "work": "kvbench.cli.work",
    "resume": "kvbench.cli.resume",
    "collect": "kvbench.cli.collect",
    "rerun": "kvbench.cli.rerun",
}
"""Each verb and the module whose `main(arguments)` answers it, imported when it is called."""
