"""Ranks of one host that declare more memory than it has for all of them."""

from dataclasses import replace

import pytest
from moe_comm.membership import Member, Membership

from moe_serve.config.tree import Config, ModelConfig, PoolConfig
from moe_serve.control.planning.shared_memory import check_shared_memory
from moe_serve.errors import ConfigError

GIB = 1 << 30
HOST = PoolConfig(name="host", device="cpu", ranks=2, memory=6 * GIB)
MORE = PoolConfig(name="more", device="emulated", hardware="h20", memory=4 * GIB)
GPU = PoolConfig(name="gpu", device="cuda", memory=80 * GIB)


def world_of(config: Config, homes: str, host_memory: int = 16 * GIB) -> Membership:
    """Each rank on the host of its letter."""
    pools = [pool for pool in config.pools for _ in range(pool.ranks)]
    assert len(pools) == len(homes)
    return Membership(
        0,
        tuple(
            Member(
                plan_rank=rank,
                pool=pool.name,
                device_kind=pool.device,
                host=home,
                process_id=rank,
                local_rank=rank,
                version="1",
                digest="",
                host_memory=host_memory,
            )
            for rank, (pool, home) in enumerate(zip(pools, homes, strict=True))
        ),
    )


def config_of(*pools: PoolConfig) -> Config:
    return Config(models=(ModelConfig(path="demo", dtype="float32"),), pools=pools)


def test_what_fits_on_each_host_is_let_through() -> None:
    config = config_of(HOST, MORE, GPU)
    check_shared_memory(config, world_of(config, "aaaa"))
    check_shared_memory(config, world_of(config, "abaa", 10 * GIB))
    # Who declares nothing takes a share of what there is.
    shares = config_of(replace(HOST, memory=0))
    check_shared_memory(shares, world_of(shares, "aa", 1))


def test_too_much_for_one_host_is_refused_with_both_figures() -> None:
    config = config_of(HOST, MORE, GPU)
    with pytest.raises(ConfigError) as refused:
        check_shared_memory(config, world_of(config, "abbb", 8 * GIB))
    assert str(refused.value) == (
        "pools[..].memory: 10.0 GiB for the 2 ranks on host b (host 1 x 6.0 GiB, more 1 x 4.0 GiB),"
        " and it has 8.0 GiB; declare less, or start fewer ranks there"
    )


def test_emulated_ranks_hold_what_their_hardware_has() -> None:
    config = config_of(replace(MORE, memory=0, ranks=2))
    with pytest.raises(ConfigError, match=r"192\.0 GiB for the 2 ranks .*, and it has 100\.0 GiB"):
        check_shared_memory(config, world_of(config, "aa", 100 * GIB))
