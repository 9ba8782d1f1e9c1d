"""What crosses where attention is shared, and through whom: the figures are those of the routes."""

from collections import Counter

import pytest
from kv_ends import hellos
from moe_comm.kv.negotiate import negotiate
from moe_comm.kv.routes import routes

from moe_serve.control.planning.kv_link import _crossing

DEGREES = (1, 2, 4, 8)


@pytest.mark.parametrize(("kind", "num_heads"), [("gqa", 4), ("mla", 1)])
@pytest.mark.parametrize("num_senders", DEGREES)
@pytest.mark.parametrize("num_receivers", DEGREES)
def test_copies_and_the_busiest_rank(
    kind: str, num_heads: int, num_senders: int, num_receivers: int
) -> None:
    senders, receivers = hellos("a", kind, num_senders), hellos("b", kind, num_receivers)
    loads: Counter[str] = Counter()
    for receiver, chosen in zip(receivers, routes(senders, receivers), strict=True):
        for sender in chosen:
            num_cells = len(negotiate(senders[sender], receiver).cells)
            loads[senders[sender].name] += num_cells
            loads[receiver.name] += num_cells
    one_copy = num_heads * len(senders[0].layers)
    crossing = _crossing(num_heads, num_senders, num_receivers)
    assert sum(loads.values()) == 2 * crossing.whole * one_copy
    assert max(loads.values()) == crossing.busiest * one_copy
