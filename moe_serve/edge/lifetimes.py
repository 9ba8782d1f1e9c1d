"""How the sequences of one HTTP request end, for the metrics."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from moe_serve.edge.metrics import SequenceTimer
from moe_serve.errors import EngineDeadError, RequestError


@contextmanager
def lifetimes(timers: Collection[SequenceTimer]) -> Iterator[None]:
    """All of them live from here on; those that have no end of their own get one by what is
    raised: refused, error, or abort."""
    for timer in timers:
        timer.start()
    end = "abort"
    try:
        yield
    except RequestError:
        end = "refused"
        raise
    except EngineDeadError:
        end = "error"
        raise
    finally:
        for timer in timers:
            timer.end(end)
