"""Has this thread's work run on another stream, in order with what is around it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def work_on(module: Any, stream: Any, index: int) -> Iterator[None]:
    """What this thread has queued so far is waited for, and later work waits for this one's.

    Args:
        module: torch.cuda or torch.npu.
        stream: of that module, on the device of this index.
    """
    outer = module.current_stream(index)
    stream.wait_stream(outer)
    try:
        with module.stream(stream):
            yield
    finally:
        outer.wait_stream(stream)
