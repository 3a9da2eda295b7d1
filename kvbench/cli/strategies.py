"""`kvbench strategies`: what there is to compare, and its parameters."""

import yaml

from kvbench.cli.catalogue import default_strategies, file_of, names, summary_line


def main(arguments: list[str]) -> int:
    """Print a line a strategy, and its parameters' defaults below."""
    defaults = default_strategies()
    for name in names("strategy"):
        path = file_of("strategy", name)
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        parameters = "  ".join(f"{key}={value}" for key, value in node.items() if key != "_target_")
        print(f"{name}{' (default)' if name in defaults else ''}: {summary_line(path)}")
        if parameters:
            print(f"    {parameters}")
    return 0
