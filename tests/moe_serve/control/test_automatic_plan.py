"""What `plan: auto` becomes: an equal split, or ranks with as many rows each."""

from pathlib import Path

import numpy as np
import pytest
from moe_placement.equal_split import equal_split
from moe_placement.load.trace import ExpertLoad
from moe_placement.load.trace_file import save
from moe_placement.model.catalogue import find_model
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import Plan, PlanError, PoolPlan

from moe_serve.config.tree import PlacementConfig
from moe_serve.control.automatic_plan import automatic_plan

POOLS = (PoolPlan("left", "cpu", (0, 1)), PoolPlan("right", "cpu", (2,)))
# Two experts have most of the rows, and an equal split puts both on one rank.
LOADS = (400, 300, 30, 50, 60, 20, 80, 60)


@pytest.fixture(scope="module")
def mixtral() -> ModelSpec:
    return find_model("mixtral_8x7b")


@pytest.fixture
def trace(mixtral: ModelSpec, tmp_path: Path) -> str:
    counts_TLE = np.tile(np.array(LOADS), (2, len(mixtral.moe_layers), 1))
    path = tmp_path / "load.npz"
    save(
        ExpertLoad(model="m", layers=mixtral.moe_layers, counts_TLE=counts_TLE, steps_per_window=8),
        path,
    )
    return str(path)


def fullest(plan: Plan) -> float:
    """The fullest rank's rows over the mean rank's, in the first layer."""
    layer = plan.layers[0]
    rows = [
        sum(LOADS[expert] * weight for expert, weight in zip(slots, weights, strict=True))
        for slots, weights in zip(layer.slots, layer.weights, strict=True)
    ]
    return max(rows) * len(rows) / sum(rows)


def test_without_a_trace_experts_are_split_evenly(mixtral: ModelSpec) -> None:
    plan = automatic_plan("m", mixtral, POOLS, PlacementConfig())
    assert plan == equal_split("m", 8, mixtral.moe_layers, POOLS)


def test_a_trace_evens_out_rows_and_replicas_more_so(mixtral: ModelSpec, trace: str) -> None:
    even = automatic_plan("m", mixtral, POOLS, PlacementConfig())
    by_load = automatic_plan("m", mixtral, POOLS, PlacementConfig(load=trace))
    wanted = PlacementConfig(load=trace, redundancy=0.25)
    with_replicas = automatic_plan("m", mixtral, POOLS, wanted)
    assert fullest(even) > 1.8
    assert fullest(by_load) == pytest.approx(1.26)
    assert fullest(with_replicas) == pytest.approx(1.0, abs=1e-6)
    assert sum(map(len, by_load.layers[0].slots)) == 8
    assert 8 < sum(map(len, with_replicas.layers[0].slots)) <= 10
    assert with_replicas.pools == POOLS
    assert automatic_plan("m", mixtral, POOLS, wanted) == with_replicas


def test_a_trace_of_another_model_is_refused(mixtral: ModelSpec, trace: str) -> None:
    other = find_model("qwen3_30b_a3b")
    with pytest.raises(PlanError, match=r"load\.npz: has 32 layers of 8 experts, the model has 48"):
        automatic_plan("m", other, POOLS, PlacementConfig(load=trace))
    with pytest.raises(PlanError, match=r"none\.npz cannot be read"):
        automatic_plan("m", mixtral, POOLS, PlacementConfig(load="none.npz"))
