"""Pauses of Python's own that a process which serves is spared."""

import gc
import sys

_SWITCH_SECONDS = 0.0005


def even_steps() -> None:
    """Call it once all is loaded.

    What is here by then stays: a full collection would look at it for a tenth of a second. And a
    thread that computes in Python beside the steps has the interpreter for half a millisecond at
    most, not for five, each time that a step comes back from one of its many operations.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_SECONDS)
