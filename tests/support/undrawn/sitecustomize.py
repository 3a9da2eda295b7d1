"""Imported by any Python whose path begins here: a run of kvbench's leaves its charts undrawn."""

import sys

if any(argument.startswith("+scenario=") for argument in sys.orig_argv):
    from tests.support.undrawn import undraw

    undraw(setattr)
