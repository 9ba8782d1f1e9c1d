"""A deployment made into a plan: every worker's experts placed, every rank priced.

Shapes: M MoE layers of the model, L distinct ones, N ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moe_placement.hardware.cluster import NodeGroup
from moe_placement.hardware.layout import device_layout
from moe_placement.memory.rank_memory import RankMemory
from moe_placement.memory.report import fit_problems, format_bytes
from moe_placement.plan import LayerPlan, Plan
from moe_placement.solver.constraints import Constraints, InfeasibleError
from moe_placement.solver.pools.old_plan import loaded_bytes, old_placement
from moe_placement.solver.pools.rank_layout import PlacedWorker, RankLayout, lay_out
from moe_placement.solver.problem import Ints
from moe_placement.solver.workers.expert_placer import ExpertPlacer, ReplicaChoice
from moe_placement.solver.workers.part_cost import CostContext
from moe_placement.solver.workers.placing import Surroundings
from moe_placement.solver.workers.room import price_rank
from moe_placement.solver.workers.worker import Deployment


@dataclass(frozen=True, slots=True, eq=False)
class BuiltPlan:
    """Attributes:
    choices: by the number of the EP group; like workers share one.
    memories: by plan rank.
    """

    plan: Plan
    layout: RankLayout
    choices: tuple[ReplicaChoice, ...]
    memories: tuple[RankMemory, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PlanBuilder:
    """Attributes:
    model: the name in the plan.
    """

    context: CostContext
    constraints: Constraints
    placer: ExpertPlacer
    model: str

    def build(self, deployment: Deployment) -> BuiltPlan:
        """Place, put together, price and validate.

        Raises:
            InfeasibleError: replicas cannot be spread, a rank lacks room, or the move costs more
                than is allowed.
        """
        cluster, constraints = self.context.cluster, self.constraints
        layout = lay_out(cluster, deployment, spread=constraints.spread)
        choices = self._place_all(layout)
        plan = Plan(
            self.model,
            self.context.spec.num_experts,
            layout.pools,
            self._layers(layout, choices),
            epoch=constraints.old.epoch + 1 if constraints.old else 0,
        )
        plan.validate()
        self._check_move(plan)
        memories = self._memories(plan, layout)
        problems = fit_problems(memories)
        if problems:
            raise InfeasibleError("; ".join(problems))
        return BuiltPlan(plan, layout, choices, memories)

    def _place_all(self, layout: RankLayout) -> tuple[ReplicaChoice, ...]:
        """Workers alike in kind and surroundings are placed once."""
        if not self.context.spec.num_experts:
            return ()
        known: dict[object, ReplicaChoice] = {}
        choices = []
        is_spread = not self.constraints.spread or workers_are_spread(self.context, layout)
        for worker in layout.placed:
            around = self._surroundings(worker, spread=not is_spread)
            key = (self.placer.signature(worker.workers.kind), *around.key)
            if key not in known:
                known[key] = self.placer.place(worker.workers.kind, around)
            choices.append(known[key])
        return tuple(choices)

    def _surroundings(self, worker: PlacedWorker, *, spread: bool) -> Surroundings:
        layout = device_layout(self.context.cluster)
        old, move_bytes = None, None
        if self.constraints.old is not None:
            old = old_placement(self.constraints.old, worker.ranks)
            if old is not None and self.constraints.move_bytes is not None:
                share = len(worker.ranks) / self.constraints.old.num_ranks
                move_bytes = self.constraints.move_bytes * min(1.0, share)
        devices = np.array(worker.devices)
        domain_N = layout.domain_N[devices]
        if spread and len(set(domain_N.tolist())) < 2:
            raise InfeasibleError(
                "spread needs each expert in 2 failure domains, but "
                f"{worker.workers.kind.name(self.context.cluster)} is in one; add a domain, or "
                "allow spread: false"
            )
        if not spread:
            domain_N = np.zeros_like(domain_N)
        even = self.constraints.even
        return Surroundings(_numbered(domain_N), spread, old, move_bytes, even)

    def _layers(self, layout: RankLayout, choices: Sequence[ReplicaChoice]) -> dict[int, LayerPlan]:
        """Layers of the plan; those alike share one object, and like workers their rows."""
        spec = self.context.spec
        known: dict[int, dict[int, LayerPlan]] = {}
        for worker, choice in zip(layout.placed, choices, strict=False):
            if id(choice) not in known:
                distinct = range(len(self.placer.load.share_LE))
                known[id(choice)] = choice.result.placement.layer_plans(distinct, len(worker.ranks))
        plans: list[LayerPlan] = []
        for row in range(len(self.placer.load.share_LE) if choices else 0):
            slots: list[tuple[int, ...]] = [()] * len(layout.device_of_rank)
            weights: list[tuple[float, ...]] = [()] * len(layout.device_of_rank)
            for worker, choice in zip(layout.placed, choices, strict=True):
                own = known[id(choice)][row]
                for local, rank in enumerate(worker.ranks):
                    slots[rank], weights[rank] = own.slots[local], own.weights[local]
            plans.append(LayerPlan(tuple(slots), tuple(weights)))
        rows = self.placer.load.layer_M.tolist()
        return {layer: plans[row] for layer, row in zip(spec.moe_layers, rows, strict=True)}

    def _memories(self, plan: Plan, layout: RankLayout) -> tuple[RankMemory, ...]:
        """Ranks in the same place of like workers hold the same; they are priced once."""
        priced: dict[object, RankMemory] = {}
        memories: dict[int, RankMemory] = {}
        layer_plans = list({id(layer): layer for layer in plan.layers.values()}.values())
        for pool in plan.pools:
            for rank in pool.ranks:
                key = (pool.name, *(id(layer.slots[rank]) for layer in layer_plans))
                if key not in priced:
                    group = self._group_of(layout, rank)
                    priced[key] = price_rank(self.context.spec, plan, rank, group, self.constraints)
                device = f"{pool.device}:{rank}"
                memories[rank] = replace(priced[key], rank=rank, device=device)
        return tuple(memories[rank] for rank in range(plan.num_ranks))

    def _group_of(self, layout: RankLayout, rank: int) -> NodeGroup:
        cluster = self.context.cluster
        return cluster.groups[int(device_layout(cluster).group_N[layout.device_of_rank[rank]])]

    def _check_move(self, plan: Plan) -> None:
        old, allowed = self.constraints.old, self.constraints.move_bytes
        if old is None or allowed is None:
            return
        loaded = loaded_bytes(self.context.spec, old, plan)
        if loaded > allowed:
            raise InfeasibleError(
                f"leaving the old plan loads {format_bytes(loaded)} of experts, move_bytes allows "
                f"{format_bytes(int(allowed))}; raise it, or keep the old plan's pools"
            )


def workers_are_spread(context: CostContext, layout: RankLayout) -> bool:
    """Whether every phase has two workers without a failure domain in common: then no domain can
    hold all replicas of an expert."""
    domain_N = device_layout(context.cluster).domain_N
    by_phase: dict[str, list[frozenset[int]]] = {}
    for worker in layout.placed:
        domains = frozenset(domain_N[list(worker.devices)].tolist())
        by_phase.setdefault(worker.workers.phase, []).append(domains)
    return all(
        any(not (one & other) for other in groups for one in groups[:1])
        for groups in by_phase.values()
    )


def _numbered(label_N: Ints) -> Ints:
    """The same partition with labels from 0, so that like surroundings are equal."""
    numbers: Ints = np.unique(label_N, return_inverse=True)[1].reshape(-1)
    return numbers
