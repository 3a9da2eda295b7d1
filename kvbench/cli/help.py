"""The help text; needs neither Hydra nor torch."""

from kvbench.configuration.catalogue import default_strategies, listing, names

_TEXT = """kvbench: which KV-cache strategy for which workload, measured.

usage:
  python -m kvbench +scenario=NAME [overrides]     compare strategies on a scenario
  python -m kvbench +experiment=NAME [overrides]   run an experiment
  python -m kvbench -m +scenario=NAME key=a,b,c    sweep; one frame and one set of charts at the end
  python -m kvbench scenarios [NAME]               list scenarios, or draw one
  python -m kvbench strategies [NAME]              list strategies and their parameters, or tell all of one
  python -m kvbench metrics                        every recorded column: unit and meaning
  python -m kvbench train trace=NAME out=FILE      train the predictor of predictive_learned, and rate it
  python -m kvbench calibrate out=FILE             measure this machine, for backend=modelled hardware=./FILE
  python -m kvbench record model=NAME text=FILE    save a real model's K, V and queries, for data=kv.safetensors

overrides:
  strategy=dynamic  'strategy=[static,dynamic]'    which strategies (default: {defaults})
  strategy.dynamic.growth_factor=2                 a strategy's parameter
  '+strategy@strategy.fast=dynamic' strategy.fast.growth_factor=2     a second instance of one, with a name
  scenario.max_requests=10 scenario.max_concurrency=4 scenario.path=trace.csv
  repetitions=5 warmup=1 seed=0 attend=true        how it is measured
  device=auto|cpu|cuda  dtype=float32|float16|bfloat16  budget_bytes=N
  model={models}
  model.num_layers=1                               shrink a model
  data=kv.safetensors                              append recorded K and V, and judge quality on them
  backend=measured|modelled|fleet                  on tensors; priced on a machine; a whole trace, event by event
  hardware={machines}
  hardware=./mine.yaml cache_only=true             a machine file of your own; without weights and projections
  +scenario=./mine.yaml                            a scenario file of your own
  trusted=[mypackage]                              let configuration name classes of your package

scenarios:
{scenarios}

experiments:
{experiments}

--cfg job prints the configuration; --hydra-help tells of Hydra's own flags; HYDRA_FULL_ERROR=1 shows tracebacks.
"""


def text() -> str:
    """What `--help` prints."""
    return _TEXT.format(
        defaults=", ".join(default_strategies()),
        models="|".join(names("model")),
        machines="|".join(names("hardware")),
        scenarios=listing("scenario"),
        experiments=listing("experiment"),
    )
