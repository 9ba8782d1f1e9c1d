"""Small clusters and questions for the tests of pools and capacity, at fixed costs."""

import json
from importlib.resources import files

from moe_placement.cost.coefficients import Coefficients
from moe_placement.hardware.catalogue import find_device
from moe_placement.hardware.cluster import ClusterSpec, NodeGroup
from moe_placement.memory.rank_memory import rank_memory
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import Plan
from moe_placement.serving.workload import Objective, Workload
from moe_placement.solver.constraints import Constraints
from moe_placement.solver.pools.question import Market, ask, open_market

# The priors of the cost model, whatever was fitted since.
COSTS = Coefficients()
CHAT = Workload(prompt_tokens=2000, output_tokens=500, rate=1.0)
LEVELS = Objective(ttft=2.0, tpot=0.03, percentile=0.9)


def shipped_spec(name: str, **changes: int) -> ModelSpec:
    text = (files("moe_placement") / "data" / name / "config.json").read_text("utf-8")
    return ModelSpec.from_config({**json.loads(text), **changes})


QWEN = shipped_spec("qwen3_30b_a3b")


def group(
    device: str,
    num_nodes: int,
    devices_per_node: int,
    price: float | None = None,
    name: str = "",
) -> NodeGroup:
    return NodeGroup(
        name=name or device,
        device=find_device(device),
        num_nodes=num_nodes,
        devices_per_node=devices_per_node,
        price_per_hour=price,
    )


def cluster(*groups: NodeGroup) -> ClusterSpec:
    return ClusterSpec(groups=groups)


def market(
    on: ClusterSpec,
    workload: Workload = CHAT,
    objective: Objective = LEVELS,
    constraints: Constraints | None = None,
) -> Market:
    constraints = constraints or Constraints()
    return open_market(ask(QWEN, on, workload, objective, constraints, COSTS, None))


def require_fit(spec: ModelSpec, plan: Plan, on: ClusterSpec, constraints: Constraints) -> None:
    """Price every rank of a plan anew, by its pool's name, as a reader of the plan would."""
    by_name = {one.name: one for one in on.groups}
    plan.validate()
    for rank in range(plan.num_ranks):
        pool = plan.pool_of(rank)
        home = max((name for name in by_name if pool.name.startswith(name)), key=len)
        memory = rank_memory(
            spec,
            plan,
            rank,
            activation_bytes=constraints.activation_bytes,
            max_tokens_per_step=constraints.max_tokens_per_step,
            max_sequences=constraints.max_sequences,
            page_size=constraints.page_size,
            num_pages=None,
            device_bytes=by_name[home].usable_memory,
            memory_fraction=constraints.memory_fraction,
            max_context=constraints.max_context or None,
        )
        assert memory.fits, (rank, memory)
