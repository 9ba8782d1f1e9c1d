"""How many more experts each rank's memory can take while it serves."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from moe_placement.plan import Plan

from moe_serve.config.tree import Config
from moe_serve.control.planning.deployment import Deployment, memory_of
from moe_serve.survive.remaining_plan import Missing, groups_left, with_missing


def free_slots(
    config: Config,
    deployment: Deployment,
    plan: Plan,
    missing: Sequence[Missing],
    lost: Collection[int],
) -> Mapping[int, int]:
    """By plan rank that is left, at most as many as are missing in its EP group.

    The cache keeps its pages. Working space is counted as if the rank took all that is missing.
    """
    return {
        rank: _free_slots(
            config, deployment, plan, rank, [each for each in missing if each.group == group]
        )
        for group, ranks in groups_left(plan, lost).items()
        for rank in ranks
    }


def _free_slots(
    config: Config, deployment: Deployment, plan: Plan, rank: int, missing: Sequence[Missing]
) -> int:
    if not missing:
        return 0
    held = deployment.memories[rank]
    kept = replace(config, cache=replace(config.cache, num_pages=held.num_pages))
    everything = with_missing(plan, dict.fromkeys(missing, rank))
    most = memory_of(kept, deployment.spec, everything, rank, held.device_bytes)
    num_slots = everything.num_slots(rank)
    slot_bytes = most.experts / num_slots
    lacking = -(-most.shortfall // slot_bytes) if most.shortfall else 0
    return max(0, len(missing) - int(lacking))
