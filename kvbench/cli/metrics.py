"""`kvbench metrics`: every recorded column, as docs/results.md has them."""

from kvbench.results.schema import markdown_table


def main(arguments: list[str]) -> int:
    """Print the table."""
    print(markdown_table())
    return 0
