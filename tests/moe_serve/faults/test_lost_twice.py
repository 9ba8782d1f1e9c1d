"""Three mpiruns: two are lost, one after the other or at once; and plan rank 0's own."""

import time
from typing import Any

import pytest
from world_runs import Worlds, begin, ended, kill, metric, range_of, tokens

pytestmark = pytest.mark.slow

PARTED = {
    "links": [
        {"between": [one, other], "bandwidth": "1GB/s", "wire": "float32"}
        for one, other in (("front", "far"), ("front", "farther"), ("far", "farther"))
    ]
}


@pytest.mark.parametrize(
    ("collective", "shards", "sections", "seconds"),
    [("mpi", 2, PARTED, 0.0), ("gloo", 1, {}, 0.3)],
)
def test_two_pools_are_lost(
    worlds: Worlds, collective: str, shards: int, sections: dict[str, Any], seconds: float
) -> None:
    url, (_, far, farther) = worlds.start(
        [
            ("front", 2, "both", [range_of(0, 4), range_of(2, 6)]),
            ("far", 1, "experts", [range_of(5, 9)]),
            ("farther", 1, "experts", [range_of(8, 12)]),
        ],
        collective=collective,
        shards=shards,
        **sections,
    )
    expected = tokens(url)
    interrupted = begin(url)
    kill(farther)
    time.sleep(seconds)
    kill(far)
    assert ended(interrupted) == expected
    assert tokens(url) == expected
    assert metric(url, "moe_serve_lost_ranks") == 2
    assert metric(url, "moe_serve_membership_epoch") in (1, 2)


def test_without_plan_rank_0_all_end(worlds: Worlds) -> None:
    url, (front, far) = worlds.start(
        [("front", 1, "both", [range_of(0, 12)]), ("far", 1, "both", [range_of(0, 12)])]
    )
    tokens(url)
    kill(front)
    assert far.wait_for_end(10.0) == 1
    assert "plan rank 0" in far.errors
