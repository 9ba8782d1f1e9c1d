"""Requests are shared out by what each rank's attention takes."""

from pathlib import Path

import pytest

from moe_serve.config.tree import AttentionConfig, Config, LinkConfig, ModelConfig, PoolConfig
from moe_serve.control.planning.deployment import plan_deployment
from moe_serve.control.planning.groups import RankGroups
from moe_serve.control.planning.rank_weights import equal_weights, rank_weights
from moe_serve.demo_config import demo_config
from moe_serve.hosting import no_plan

DEVICES = Path(__file__).parents[4] / "configs" / "devices"
LINKS = (
    LinkConfig(between=("fast", "slow"), bandwidth=1e9),
    LinkConfig(between=("fast", "cold"), bandwidth=1e9),
    LinkConfig(between=("slow", "cold"), bandwidth=1e9),
)


def config_of(*, fast: str = "", slow: str = "", cold: str = "") -> Config:
    pools = (
        PoolConfig(name="fast", device="cpu", weights="float32", hardware=fast, ranks=2),
        PoolConfig(
            name="slow",
            device="cpu",
            weights="float32",
            hardware=slow,
            ranks=2,
            attention=AttentionConfig(tensor_parallel=2),
        ),
        PoolConfig(name="cold", device="cpu", weights="float32", hardware=cold, role="experts"),
    )
    model = ModelConfig(path="demo", name="demo", dtype="float32", max_context=512)
    return Config(models=(model,), pools=pools, links=LINKS)


def weights(**hardware: str) -> tuple[float, ...]:
    config = config_of(**hardware)
    deployment = plan_deployment(config, demo_config(), [1 << 30] * 5)
    homes = RankGroups.of(config, deployment.plan).homes(deployment.plan)
    return rank_weights(config, deployment, homes)


def device(kind: str) -> str:
    return str(DEVICES / f"{kind}_like.yaml")


def test_slower_attention_gets_fewer_requests() -> None:
    fast, second, slow, follower, cold = weights(
        fast=device("gpu"), slow=device("cpu"), cold=device("cpu")
    )
    assert fast == second == 1.0
    assert 0.2 < slow < 0.9
    assert follower == cold == 0.0


def test_where_hardware_is_not_named_all_get_as_many() -> None:
    assert weights(fast="", slow="", cold="") == pytest.approx((1, 1, 1, 0, 0))


def test_ranks_that_follow_others_get_none_of_a_model_that_comes_later() -> None:
    config = config_of()
    assert equal_weights(config, no_plan(config)) == (1, 1, 1, 0, 0)
