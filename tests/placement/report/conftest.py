"""A solution made by hand: two pools of unlike devices, eight experts, two layers."""

import pytest
from moe_placement.memory.rank_memory import rank_memory
from moe_placement.model.catalogue import find_model
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import LayerPlan, Plan, PoolPlan
from moe_placement.serving.workload import Prediction
from moe_placement.solver.solution import Alternative, Choice, Solution

_SLOTS = ((0, 1, 2, 3, 4), (4, 5, 6, 7))
_WEIGHTS = ((1.0, 1.0, 1.0, 1.0, 0.25), (0.75, 1.0, 1.0, 1.0))


def prediction(tpot: float, throughput: float) -> Prediction:
    return Prediction(
        ttft=0.2,
        ttft_tail=0.9,
        tpot=tpot,
        tpot_tail=1.5 * tpot,
        request_rate=throughput / 500,
        throughput=throughput,
        utilisation={"both": 0.8},
    )


@pytest.fixture(scope="session")
def mixtral() -> ModelSpec:
    return find_model("mixtral_8x7b")


@pytest.fixture(scope="session")
def plan(mixtral: ModelSpec) -> Plan:
    pools = (
        PoolPlan("hopper", "cuda", (0,), weight_format="fp8"),
        PoolPlan("ascend", "npu", (1,), weight_format="int8"),
    )
    layer = LayerPlan(_SLOTS, _WEIGHTS)
    return Plan("mixtral_8x7b", 8, pools, dict.fromkeys(mixtral.moe_layers, layer))


@pytest.fixture(scope="session")
def solution(plan: Plan, mixtral: ModelSpec) -> Solution:
    memories = tuple(
        rank_memory(
            mixtral,
            plan,
            rank,
            max_tokens_per_step=8192,
            max_sequences=256,
            page_size=64,
            num_pages=None,
            device_bytes=device_bytes,
            memory_fraction=0.9,
        )
        for rank, device_bytes in enumerate((141 * 10**9, 64 * 2**30))
    )
    best, slower = prediction(0.02, 4000.0), prediction(0.05, 3000.0)
    return Solution(
        plan=plan,
        prediction=best,
        step_seconds=0.021,
        lower_bound=0.02,
        binding="expert bytes of ascend",
        choices=(Choice(subject="phases", chosen="together", reason="apart is 12 % slower"),),
        alternatives=(
            Alternative(
                name="together 1 x (hopper + ascend)",
                num_devices=2,
                prediction=best,
                meets_objective=True,
                cost_per_hour=5.5,
                curve=(prediction(0.01, 1000.0), best),
            ),
            Alternative(
                name="<script>alert('x')</script> & co",
                num_devices=3,
                prediction=slower,
                meets_objective=False,
                loses_because="TPOT is 50 ms, 40 ms were asked for",
            ),
        ),
        memories=memories,
    )
