"""A plan read from a file, for the model and the pools of a config."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from moe_placement.memory.rank_memory import check_model
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import PlanError, PoolPlan
from moe_placement.plan_file import load

from moe_serve.config.tree import Config
from moe_serve.control.planning.automatic_plan import ChosenPlan

# What both say of a pool, and the key by which the config says it. Which EP group a rank is in,
# the plan alone says.
_KEYS = {
    "name": "name",
    "device": "device",
    "ranks": "ranks",
    "role": "role",
    "weight_format": "weights",
    "tensor_parallel": "attention.tensor_parallel",
}


def plan_of_file(config: Config, spec: ModelSpec, pools: Sequence[PoolPlan]) -> ChosenPlan:
    """The plan that `placement.plan` names.

    Args:
        pools: of the config.

    Raises:
        PlanError: no plan file, one that contradicts itself, or one of another model or of other
            pools.
    """
    file = config.placement.plan
    plan = load(Path(file))
    check_model(plan, spec)
    for difference in _differences(plan.pools, pools):
        raise PlanError(f"{file} {difference}; make them agree")
    name = config.models[0].name
    other = f"{file} was made for the model {plan.model}, and runs {name} now"
    return ChosenPlan(plan, (other,) if plan.model != name else ())


def _differences(planned: Sequence[PoolPlan], wanted: Sequence[PoolPlan]) -> Iterator[str]:
    for index, (pool, own) in enumerate(zip(planned, wanted, strict=False)):
        for field, key in _KEYS.items():
            found, expected = getattr(pool, field), getattr(own, field)
            if found != expected:
                yield (
                    f'has pool "{pool.name}" with {key} {_text(found)}, '
                    f"the config says pools[{index}].{key} {_text(expected)}"
                )
    if len(planned) != len(wanted):
        names = ", ".join(pool.name for pool in planned)
        yield f"has {len(planned)} pools ({names}), the config has {len(wanted)}"


def _text(value: object) -> str:
    """Plan ranks, as people count them."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
