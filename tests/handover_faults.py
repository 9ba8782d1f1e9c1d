"""Faults of one rank's part of a handover, to show that the exactness tests see them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from moe_comm.kv.sending import Sending

from moe_serve.step.rank_kv import RankKv

_LAYER = 1


def stands_still(sending: Sending, *block: Any) -> None:
    """Offers, and answers, but not one block leaves."""


def swaps_heads(kv: RankKv, layer: int, page_ids: Any, first: int, end: int) -> Any:
    parts = _read(kv, layer, page_ids, first, end)
    return tuple(part[:, ::-1].copy() for part in parts) if layer == _LAYER else parts


def loses_what_lands(
    kv: RankKv, layer: int, page_ids: Any, first_token: int, first_head: int, parts: Any
) -> None:
    if layer != _LAYER:
        _write(kv, layer, page_ids, first_token, first_head, parts)


_read, _write = RankKv.read, RankKv.write
FAULTS: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "stands still": (Sending, "_put_block", stands_still),
    "swaps heads": (RankKv, "read", swaps_heads),
    "loses what lands": (RankKv, "write", loses_what_lands),
}


@contextmanager
def plant(fault: str | None, here: bool) -> Iterator[None]:
    """One of FAULTS, on the rank that is to have it."""
    if fault is None or not here:
        yield
        return
    owner, name, faulty = FAULTS[fault]
    with patch.object(owner, name, faulty):
        yield
