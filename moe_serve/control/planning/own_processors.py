"""Whether models with processors of their own leave enough to those that take turns."""

from collections.abc import Sequence
from math import floor

from moe_devices.errors import DeviceError
from moe_devices.partition import units_by_percent
from moe_placement.packing.turn_shares import KeptProcessors

from moe_serve.config.tree import Config
from moe_serve.errors import PlacementError
from moe_serve.messages import ALL_RANKS, PlacedTenant

_ROUNDING = 1e-9


def own_percents(here: Sequence[PlacedTenant]) -> dict[int, int]:
    """Whole percents of a rank's processors, by tenant that has them to itself."""
    return {
        each.number: floor(100 * each.share + _ROUNDING) for each in here if not each.takes_turns
    }


def check_processors(
    tenants: Sequence[PlacedTenant], rank: int, gone: Sequence[PlacedTenant] = ()
) -> None:
    """Refuse shares that what models with isolate: sm leave of a rank's processors cannot give.

    Args:
        gone: models with isolate: sm that were unloaded; nobody else has their processors.

    Raises:
        PlacementError: they leave none, or turns there would come to more than all of the time.
    """
    here = [each for each in tenants if each.rank in (ALL_RANKS, rank)]
    percents = own_percents(here)
    if sum(percents.values()) >= 100:
        asked = ", ".join(
            f"{each.model.name} {percents[each.number]}" for each in here if not each.takes_turns
        )
        raise PlacementError(
            f"models[..].slice.compute_percent: models with isolate: sm ask for all of rank "
            f"{rank}'s processors ({asked}), and the other models and the serving loop need some; "
            "lower some, or use isolate: time"
        )
    turns = _turns(tenants, rank, gone)
    percent = 100 * sum(turns.values())
    if percent > 100 + _ROUNDING:
        asked = ", ".join(f"{name} {100 * share:.4g}" for name, share in turns.items())
        raise PlacementError(
            "models[..].slice.compute_percent: beside the processors that models with isolate: sm "
            f"have, or had before they were unloaded, turns on rank {rank} come to {percent:.4g} "
            f"percent of the time ({asked}); lower some, or have models with isolate: sm take as "
            "much of each rank"
        )


def _turns(
    tenants: Sequence[PlacedTenant], rank: int, gone: Sequence[PlacedTenant]
) -> dict[str, float]:
    """Shares of a rank's time by model. One of all ranks has its turns on all of them at once:
    where less is left of one rank's processors, its turns are longer on all."""
    taking, kept = [each for each in tenants if each.takes_turns], KeptProcessors()
    for each in (*gone, *tenants):
        if not each.takes_turns:
            kept.keep(each.number, each.rank, each.share)
    asked = [(None if each.rank == ALL_RANKS else each.rank, each.share) for each in taking]
    shares = kept.turn_shares(asked)
    return {
        each.model.name: share
        for each, share in zip(taking, shares, strict=True)
        if each.rank in (ALL_RANKS, rank)
    }


def core_problems(config: Config, tenants: Sequence[PlacedTenant], num_cores: int) -> list[str]:
    """Why processors cannot be divided as asked, as far as that is known before ranks start.

    Args:
        num_cores: of each rank on this host; 0 is not known. Pools that declare their memory may
            be on another one.
    """
    problems = []
    for rank in range(config.num_ranks):
        pool = config.pool_of(rank)
        percents = own_percents([each for each in tenants if each.rank == rank])
        if percents and pool.device == "emulated":
            problems.append(f"rank {rank}: an emulated device is not divided; use isolate: time")
        elif percents and pool.device == "cpu" and not pool.memory and num_cores:
            try:
                units_by_percent(list(percents.values()), num_cores, "cores")
            except DeviceError as error:
                problems.append(f"rank {rank}: {error}")
    return problems
