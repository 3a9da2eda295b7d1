"""`kvbench recommend +scenario=… hardware=[…] subject_to=[…]`: what to deploy, in plain words, with its doubt."""

from kvbench.api.recommending import recommend
from kvbench.cli.tune import searched

USAGE = (
    "python -m kvbench recommend +scenario=azure_conv 'hardware=[h100,l40s]' model=llama3_8b "
    "'subject_to=[ttft_p99_s<=1,tpot_p99_s<=0.05]'"
)


def main(arguments: list[str]) -> int:
    """Print the answer.

    Raises:
        UsageError: the input is wrong, a trace is missing, or the chart cannot be written.
        KeyboardInterrupt: a signal ended it; the same command goes on.
    """
    return searched("recommend", recommend, arguments, ("scenario", "hardware", "subject_to"), USAGE)
