"""Ranks go on together or not at all."""

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar, cast

from moe_serve.errors import AgreedError, MoeServeError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Gathering(Protocol):
    """Where ranks hear of each other, before or after torch is loaded."""

    @property
    def size(self) -> int: ...

    def allgather_bytes(self, data: bytes) -> list[bytes]:
        """-> the data of each rank, in rank order."""
        ...


def together(ranks: Gathering, action: Callable[[], Result]) -> Result:
    """Run `action` on every rank; where it fails on any, all raise the lowest failing rank's error.

    Raises:
        AgreedError: the error in the words of the lowest rank that had one.
    """
    result, error = None, ""
    try:
        result = action()
    except (MoeServeError, OSError, ValueError, MemoryError) as failure:
        logger.debug("this rank cannot go on", exc_info=True)
        error = f"{failure}" or type(failure).__name__
    errors = [text.decode() for text in ranks.allgather_bytes(error.encode())]
    failed = [rank for rank, text in enumerate(errors) if text]
    if failed:
        # Where all say the same it is nobody's in particular.
        is_common = len(failed) == ranks.size and len(set(errors)) == 1
        where = "" if is_common else f"rank {failed[0]}: "
        raise AgreedError(where + errors[failed[0]])
    return cast(Result, result)
