"""Which plan those ranks run next that are there."""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import msgspec
from moe_placement.plan import Plan

from moe_serve.config.tree import Config
from moe_serve.control.planning.deployment import Deployment
from moe_serve.control.planning.groups import RankGroups
from moe_serve.errors import PlacementError
from moe_serve.survive.remaining_plan import (
    Missing,
    choose_ranks,
    find_missing,
    plan_with,
    plan_without,
    with_missing,
)
from moe_serve.survive.room import free_slots

logger = logging.getLogger(__name__)


class Standpoint(msgspec.Struct, frozen=True):
    """What plan rank 0 goes on from.

    Attributes:
        plan: in force.
        whole: that was in force when all ranks were there.
        returned: ranks that were lost under `plan` and are there again; they hold what `whole` has
            for them.
    """

    plan: Plan
    whole: Plan
    returned: tuple[int, ...]

    def plans(self, lost: Collection[int], epoch: int) -> Iterator[Plan]:
        """The best first; in them experts may be missing, or more than a rank has room to load.

        Args:
            epoch: that no rank's plan is beyond.
        """
        if self.returned:
            yield plan_without(replace(self.whole, epoch=epoch), lost)
        joined = plan_with(self.plan, self.whole, self.returned)
        yield plan_without(replace(joined, epoch=epoch), lost)


def with_all_experts(
    config: Config, deployment: Deployment, groups: RankGroups, plan: Plan, lost: Collection[int]
) -> Plan:
    """
    Raises:
        PlacementError: nobody is left that takes requests, or experts are missing for which there
            is no room.
    """
    if not groups.homes(plan):
        raise PlacementError("every rank that takes requests is lost; start its pool again")
    missing = find_missing(plan, lost)
    room = free_slots(config, deployment, plan, missing, lost)
    places = choose_ranks(plan, missing, lost, room)
    if len(places) < len(missing):
        raise PlacementError(_lament(missing, [each for each in missing if each not in places]))
    if missing:
        logger.warning("%d experts are loaded again where there is room", len(missing))
    return with_missing(plan, places)


def _lament(missing: Sequence[Missing], homeless: Sequence[Missing]) -> str:
    first = homeless[0]
    return (
        f"{len(missing)} experts were lost with their ranks, and the memory of those that are left "
        f"has no room for {len(homeless)} of them, the first is expert {first.expert} of layer "
        f"{first.layer}; start the lost pool again, lower cache.num_pages, or give the plan "
        "replicas"
    )
