"""Ways for many pools to share the phases: few where pools are alike, and not too many."""

from dataclasses import replace
from itertools import product

import pytest
from moe_placement.hardware.catalogue import find_device

from moe_serve.config.tree import Config, LinkConfig, ModelConfig, PoolConfig
from moe_serve.control.planning.role_choices import MOST_WAYS, TooManyWaysError, role_choices

DEVICE = find_device("h20")
LETTERS = "abcdefgh"


def config_of(*ranks: int, bandwidths: dict[str, float] | None = None) -> Config:
    """A pool of each number of ranks, whose role is to be chosen, named by the letters; links by
    the names of their ends."""
    pools = tuple(
        PoolConfig(name=name, device="cuda", ranks=number, role="auto", hardware="h20")
        for name, number in zip(LETTERS, ranks, strict=False)
    )
    links = tuple(
        LinkConfig(between=(ends[0], ends[1]), bandwidth=bandwidth)
        for ends, bandwidth in (bandwidths or {}).items()
    )
    return Config(models=(ModelConfig(path="demo"),), pools=pools, links=links)


def ways(config: Config) -> list[str]:
    """By pool, the first letter of its role."""
    hardware = {pool.name: DEVICE for pool in config.pools}
    return ["".join(role[0] for role in roles) for roles in role_choices(config, hardware)]


def test_unlike_pools_have_every_way() -> None:
    found = ways(config_of(1, 2, 3))
    apart = {"".join(each) for each in product("pd", repeat=3)} - {"ppp", "ddd"}
    assert found[0] == "bbb"
    assert set(found[1:]) == apart and len(found) == 7


def test_of_pools_that_differ_in_name_alone_only_numbers_count() -> None:
    assert ways(config_of(2, 2, 2, 2)) == ["bbbb", "pppd", "ppdd", "pddd"]
    together, *apart = ways(config_of(2, 1, 2))
    assert together == "bbb"
    assert sorted(apart) == ["dpd", "pdd", "pdp", "ppd"]


def test_links_make_like_pools_unlike() -> None:
    even = config_of(2, 2, 1, bandwidths={"ab": 1e9, "ac": 2e9, "cb": 2e9})
    assert len(ways(even)) == 5
    uneven = replace(even, links=(*even.links[:2], replace(even.links[2], bandwidth=3e9)))
    assert len(ways(uneven)) == 7


def test_too_many_ways_are_refused_with_both_numbers() -> None:
    assert len(ways(config_of(1, 2, 3, 4, 5))) == MOST_WAYS - 1
    assert len(ways(config_of(*[1] * 8))) == 8
    with pytest.raises(TooManyWaysError) as refused:
        ways(config_of(1, 2, 3, 4, 5, 6))
    assert str(refused.value) == (
        "6 pools can share the phases in 64 ways, 32 at most are compared; give some of them a role"
    )
