"""Config and model to a plan that fits, or a sentence that says why not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from moe_placement.plan import Plan
from moe_placement.plan_file import save

from moe_serve.config.resolve import resolve
from moe_serve.config.tree import (
    AttentionConfig,
    CacheConfig,
    Config,
    ModelConfig,
    PlacementConfig,
    PoolConfig,
)
from moe_serve.control.planning.deployment import (
    Deployment,
    plan_deployment,
    pool_plans,
    require_one_plan,
)
from moe_serve.control.planning.model_json import read_model_json
from moe_serve.errors import (
    AgreedError,
    CheckpointError,
    ConfigError,
    PlacementError,
    UnsupportedError,
)

GIB = 2**30
MODEL = ModelConfig(path="builtin:mixtral_8x7b")
POOLS = (
    PoolConfig(name="left", device="cpu", ranks=2),
    PoolConfig(name="right", device="cpu", ranks=1),
)
Planned = Callable[..., Deployment]


@pytest.fixture
def model_json() -> dict[str, Any]:
    return read_model_json(MODEL)


@pytest.fixture
def planned(model_json: dict[str, Any]) -> Planned:
    def plan(device_bytes: int = 128 * GIB, **changes: Any) -> Deployment:
        config = Config(models=(MODEL,), pools=POOLS, **changes)
        return plan_deployment(resolve(config, model_json, 1), model_json, [device_bytes] * 3)

    return plan


def test_pools_take_their_plan_ranks_in_the_order_of_the_config(planned: Planned) -> None:
    deployment = planned()
    left, right = deployment.plan.pools
    assert (left.ranks, right.ranks) == ((0, 1), (2,))
    assert (left.weight_format, right.weight_format) == ("bfloat16", "bfloat16")
    assert [memory.pool for memory in deployment.memories] == ["left", "left", "right"]
    deployment.require_fit()


def test_every_expert_of_every_layer_is_somewhere(planned: Planned) -> None:
    plan = planned().plan
    assert set(plan.layers) == set(range(32))
    assert [len(slots) for slots in plan.layers[0].slots] == [3, 3, 2]


def test_pages_take_what_the_fraction_leaves_or_what_is_asked(planned: Planned) -> None:
    taking = planned().memories[0]
    assert 0 <= taking.budget - taking.total < taking.page_bytes
    asked = planned(cache=CacheConfig(num_pages=10)).memories[0]
    assert asked.num_pages == 10
    assert asked.total < taking.total


def test_what_does_not_fit_says_how_much(planned: Planned) -> None:
    deployment = planned(20 * GIB)
    assert len(deployment.problems) == 2
    with pytest.raises(PlacementError, match=r"plan needs .* on cpu:0, 18\.0 GiB free .*; add"):
        deployment.require_fit()


@pytest.fixture
def plan_file(planned: Planned, tmp_path: Path) -> Callable[[Plan], PlacementConfig]:
    def write(plan: Plan) -> PlacementConfig:
        save(plan, tmp_path / "plan.json")
        return PlacementConfig(plan=str(tmp_path / "plan.json"))

    return write


def test_a_plan_file_is_what_runs(
    planned: Planned, plan_file: Callable[[Plan], PlacementConfig]
) -> None:
    even = planned().plan
    layer = even.layers[0]
    turned = replace(layer, slots=((7, 6, 5), (4, 3, 2), (1, 0)))
    plan = replace(even, layers={**even.layers, 0: turned})
    assert planned(placement=plan_file(plan)).plan == plan


def test_a_plan_file_of_another_model_s_name_runs_and_is_said(
    planned: Planned, plan_file: Callable[[Plan], PlacementConfig]
) -> None:
    plan = planned().plan
    assert planned(placement=plan_file(plan)).reasons == ()
    other = planned(placement=plan_file(replace(plan, model="mixtral-tuned", epoch=4)))
    assert other.plan.epoch == 4
    (said,) = other.reasons
    assert "made for the model mixtral-tuned, and runs mixtral_8x7b now" in said


class Ranks:
    """Rank 0 among others that show what it shows, or these; remembers what was shown."""

    def __init__(self, *others: bytes) -> None:
        self._others = others
        self.shown = b""

    @property
    def size(self) -> int:
        return 3

    def allgather_bytes(self, data: bytes) -> list[bytes]:
        self.shown = data
        return [data, *(self._others or (data, data))]


def test_ranks_that_read_different_plans_are_refused(planned: Planned) -> None:
    plan = planned().plan
    same, other = Ranks(), Ranks()
    require_one_plan(same, plan)
    require_one_plan(other, replace(plan, epoch=1))
    with pytest.raises(AgreedError, match="rank 2 read another plan than rank 0"):
        require_one_plan(Ranks(same.shown, other.shown), plan)


def test_a_plan_file_of_other_pools_or_another_model_is_refused(
    planned: Planned, plan_file: Callable[[Plan], PlacementConfig]
) -> None:
    plan = planned().plan
    left, right = plan.pools
    said = (
        r'placement\.plan: .*plan\.json has pool "left" with weights float16, the config says '
        r"pools\[0\]\.weights bfloat16; make them agree"
    )
    other = replace(plan, pools=(replace(left, weight_format="float16"), right))
    with pytest.raises(PlacementError, match=said):
        planned(placement=plan_file(other))
    other = replace(plan, pools=(left, replace(right, role="experts")))
    with pytest.raises(PlacementError, match=r'"right" with role experts, .*\[1\]\.role both;'):
        planned(placement=plan_file(other))
    joined = replace(plan, pools=(replace(left, ranks=(0, 1, 2)),))
    with pytest.raises(PlacementError, match=r'"left" with ranks 0 1 2, .*\[0\]\.ranks 0 1; make'):
        planned(placement=plan_file(joined))
    fewer = replace(plan, layers={0: plan.layers[0]})
    with pytest.raises(PlacementError, match="layer 1 has experts in the model"):
        planned(placement=plan_file(fewer))


def test_a_plan_file_that_is_not_there_is_named(planned: Planned, tmp_path: Path) -> None:
    with pytest.raises(PlacementError, match=r"placement\.plan: .*none\.json cannot be read"):
        planned(placement=PlacementConfig(plan=str(tmp_path / "none.json")))


def test_a_model_that_cannot_be_planned_is_refused(model_json: dict[str, Any]) -> None:
    config = resolve(Config(models=(MODEL,), pools=POOLS), model_json, 1)
    with pytest.raises(UnsupportedError, match=r"GrokForCausalLM is not supported; supported: "):
        plan_deployment(config, {**model_json, "architectures": ["GrokForCausalLM"]}, [1] * 3)
    with pytest.raises(CheckpointError, match="vocab_size 0"):
        plan_deployment(config, {**model_json, "vocab_size": 0}, [1] * 3)


def test_heads_that_ranks_cannot_share_are_refused(model_json: dict[str, Any]) -> None:
    pool = PoolConfig(
        name="all", device="cpu", ranks=3, attention=AttentionConfig(tensor_parallel=3)
    )
    config = resolve(Config(models=(MODEL,), pools=(pool,)), model_json, 1)
    said = r"pools\[0\]\.attention\.tensor_parallel: 3 ranks cannot share 32 attention heads"
    with pytest.raises(UnsupportedError, match=said):
        plan_deployment(config, model_json, [GIB] * 3)


def test_an_experts_pool_of_a_model_without_experts_is_refused() -> None:
    model = ModelConfig(path="builtin:llama_3_1_8b")
    pools = (POOLS[0], PoolConfig(name="rest", device="cpu", role="experts"))
    model_json = read_model_json(model)
    config = resolve(Config(models=(model,), pools=pools), model_json, 1)
    with pytest.raises(ConfigError, match=r"pools\[1\]\.role: Llama.* has no experts for a pool"):
        plan_deployment(config, model_json, [GIB] * 3)


def test_pool_plans_are_those_of_the_config() -> None:
    plans = pool_plans(Config(models=(MODEL,), pools=POOLS))
    assert [(plan.name, plan.device, plan.ranks, plan.role) for plan in plans] == [
        ("left", "cpu", (0, 1), "both"),
        ("right", "cpu", (2,), "both"),
    ]
