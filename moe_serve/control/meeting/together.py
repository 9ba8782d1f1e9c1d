"""Ranks go on together or not at all."""

import logging
import re
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, cast

from moe_serve.errors import AgreedError, MoeServeError, is_out_of_memory

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Gathering(Protocol):
    """Where ranks hear of each other, before or after torch is loaded."""

    @property
    def size(self) -> int: ...

    def allgather_bytes(self, data: bytes) -> list[bytes]:
        """-> the data of each rank, in rank order."""
        ...


def together(
    ranks: Gathering, action: Callable[[], Result], plan_ranks: Sequence[int] | None = None
) -> Result:
    """Run `action` on every rank; where it fails on any, all raise the lowest failing rank's error.

    Args:
        plan_ranks: of these ranks, where they are not the first ones.

    Raises:
        AgreedError: the error in the words of the lowest rank that had one.
    """
    result, error = None, ""
    try:
        result = action()
    except (MoeServeError, OSError, ValueError, MemoryError, RuntimeError) as failure:
        if isinstance(failure, RuntimeError) and not is_out_of_memory(failure):
            raise
        logger.debug("this rank cannot go on", exc_info=True)
        error = _sentence(failure)
    errors = [text.decode() for text in ranks.allgather_bytes(error.encode())]
    failed = [rank for rank, text in enumerate(errors) if text]
    if failed:
        # Where all say the same it is nobody's in particular.
        is_common = len(failed) == ranks.size and len(set(errors)) == 1
        number = plan_ranks[failed[0]] if plan_ranks else failed[0]
        where = "" if is_common else f"rank {number}: "
        raise AgreedError(where + errors[failed[0]])
    return cast(Result, result)


def _sentence(failure: Exception) -> str:
    if is_out_of_memory(failure):
        size = re.search(r"tried to allocate [\d.]+ \w+", f"{failure}", re.IGNORECASE)
        what = "it " + size[0][0].lower() + size[0][1:] if size else type(failure).__name__
        return (
            f"out of memory: {what}; lower cache.memory_fraction, declare less in "
            "pools[..].memory, or end what else uses the device"
        )
    return f"{failure}" or type(failure).__name__
