"""Pauses that a process which serves is spared: Python's own, and those that its threads make."""

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SWITCH_SECONDS = 0.0005
# A tenth of what a thread of usual priority gets, where both want the same core.
_NICE = 10


@contextmanager
def unwatched_imports() -> Iterator[None]:
    """Modules that are loaded within stay, and no collection looks at their many objects: with
    torch that takes half a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def even_steps() -> None:
    """Call it once all is loaded.

    What is here by then stays: a full collection would look at it for a tenth of a second. And a
    thread that computes in Python beside the steps has the interpreter for half a millisecond at
    most, not for five, each time that a step comes back from one of its many operations.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_SECONDS)


def beside_steps() -> None:
    """Called by a thread that loads or frees beside the steps: has it take what they leave of the
    processor, and little where they leave nothing."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(_NICE, os.getpriority(os.PRIO_PROCESS, thread)))
