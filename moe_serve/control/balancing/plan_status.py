"""What `/v1/plan` tells of the plan in force: what is where, why, under which load, what moves."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from moe_placement.plan import Plan

from moe_serve.control.balancing.balance import ServedDeployment
from moe_serve.control.balancing.balancer import Balancer, Ranks
from moe_serve.control.balancing.expert_load import ExpertLoadRecord


class PlanStatus:
    def __init__(
        self,
        served: ServedDeployment,
        record: ExpertLoadRecord,
        ranks: Ranks,
        balancer: Balancer,
    ) -> None:
        self._served = served
        self._record = record
        self._ranks = ranks
        self._balancer = balancer

    def values(self) -> dict[str, Any]:
        """For JSON; layers by the model's own numbers."""
        plan, membership = self._balancer.plan, self._ranks.membership
        return {
            **_plan_values(plan),
            "reasons": list(self._served.reasons),
            "load": self._load(plan),
            "ranks": self._rank_values(),
            "membership": {
                "epoch": membership.epoch,
                "lost": sorted(membership.lost),
                "refusal": membership.refusal,
            },
            "rebalancing": self._rebalancing(),
        }

    def _rank_values(self) -> dict[str, list[Any]]:
        """By plan rank; null for those that are lost."""
        lost = self._ranks.membership.lost
        by_rank: dict[str, Sequence[Any]] = {
            "plan_epoch": [rank.plan_epoch for rank in self._ranks.stats()],
            "load_over_mean": self._ranks.rank_loads,
        }
        return {
            name: [None if rank in lost else value for rank, value in enumerate(values)]
            for name, values in by_rank.items()
        }

    def _load(self, plan: Plan) -> dict[str, list[float]]:
        """Each expert's share of its layer's rows of late; 0 where there were none."""
        counts_LE = self._record.late_LE().astype(float)
        shares_LE = counts_LE / counts_LE.sum(axis=1, keepdims=True).clip(min=1.0)
        return {
            str(layer): shares_E
            for layer, shares_E in zip(sorted(plan.layers), shares_LE.tolist(), strict=True)
        }

    def _rebalancing(self) -> dict[str, Any]:
        balancer, stats = self._balancer, self._ranks.stats()
        moving = None
        if balancer.moving is not None:
            waiting = [rank.num_experts_to_load for rank in stats]
            moving = {**asdict(balancer.moving), "experts_to_load": waiting}
        return {
            "every_seconds": self._served.config.placement.rebalance_every,
            "moving": moving,
            "decisions": list(balancer.decisions),
            "num_given_up": balancer.num_given_up,
            "moved_bytes": sum(rank.moved_bytes for rank in stats),
        }


def _plan_values(plan: Plan) -> dict[str, Any]:
    return {
        "model": plan.model,
        "epoch": plan.epoch,
        "num_experts": plan.num_experts,
        "pools": [asdict(pool) for pool in plan.pools],
        "layers": {str(layer): asdict(placed) for layer, placed in plan.layers.items()},
    }
