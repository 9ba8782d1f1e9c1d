"""Each rank's share of the requests, by how fast its device computes attention."""

from collections.abc import Sequence

from moe_devices.work import AttentionWork
from moe_placement.plan import Plan

from moe_serve.config.tree import Config
from moe_serve.control.planning.deployment import Deployment
from moe_serve.control.planning.groups import RankGroups
from moe_serve.control.planning.hardware import pool_hardware
from moe_serve.control.planning.pace import pace_of

# A typical decode step: its price decides, not its size.
_SEQUENCES = 32
_CONTEXT = 1024


def equal_weights(config: Config, plan: Plan) -> tuple[float, ...]:
    """By plan rank, whatever a model takes there: 1, and 0 for ranks that follow others."""
    homes = RankGroups.of(config, plan).homes(plan)
    return tuple(float(rank in homes) for rank in range(plan.num_ranks))


def rank_weights(config: Config, deployment: Deployment, homes: Sequence[int]) -> tuple[float, ...]:
    """By plan rank; 0 takes no requests. The fastest have 1, and all have it where it is not known
    of every pool with requests what its hardware is."""
    plan, hardware = deployment.plan, pool_hardware(config)
    pools = {pool.name: pool for pool in map(plan.pool_of, homes)}
    if not pools.keys() <= hardware.keys():
        return tuple(float(rank in homes) for rank in range(plan.num_ranks))
    work = AttentionWork(
        first_layer=0,
        end_layer=None,
        num_decoding=_SEQUENCES,
        decode_context=_SEQUENCES * _CONTEXT,
    )
    dtype = config.models[0].dtype
    seconds = {
        name: pace_of(hardware[name], deployment.spec, pool, dtype, {})(work)
        for name, pool in pools.items()
    }
    fastest = min(seconds.values())
    return tuple(
        fastest / seconds[plan.pool_of(rank).name] if rank in homes else 0.0
        for rank in range(plan.num_ranks)
    )
