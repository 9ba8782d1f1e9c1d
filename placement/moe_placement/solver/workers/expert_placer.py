"""One worker's experts: the faster of one replica each and as many as are allowed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from moe_placement.serving.workload import Workload
from moe_placement.solver.constraints import Constraints
from moe_placement.solver.place import PlacementResult, place_experts
from moe_placement.solver.workers.candidate import Candidate
from moe_placement.solver.workers.part_cost import CostContext
from moe_placement.solver.workers.placing import (
    ExpertLoad,
    Surroundings,
    expert_problem,
    most_slots,
)
from moe_placement.solver.workers.room import room_for_slots
from moe_placement.solver.workers.worker import WorkerKind

# Of the experts' seconds, from which replicas are worth the memory that they take.
_WORTH_REPLICAS = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class ReplicaChoice:
    """One worker's experts, placed with and without replicas.

    Attributes:
        result: the one that is faster.
        seconds: its experts' seconds over all layers.
        other_seconds: of the one that is not; None where only one was possible.
    """

    result: PlacementResult
    num_slots: int
    seconds: float
    other_seconds: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ExpertPlacer:
    """Attributes:
    tokens: of a step of each kind of worker, which its experts are placed for.
    """

    context: CostContext
    constraints: Constraints
    workload: Workload
    load: ExpertLoad
    candidates: Mapping[WorkerKind, Candidate]
    tokens: Mapping[WorkerKind, float]
    seed: int

    def signature(self, kind: WorkerKind) -> object:
        """Equal for workers whose experts are placed alike: their groups differ in name alone."""
        if kind.is_mixed:
            return kind
        part = kind.parts[0]
        group = self.context.group(part)
        return (
            id(group.device),
            group.usable_memory,
            group.devices_per_node,
            replace(part, group=0),
            self.tokens[kind],
        )

    def place(self, kind: WorkerKind, around: Surroundings) -> ReplicaChoice:
        """The faster of one replica each and as many as are allowed and have room."""
        spec, candidate = self.context.spec, self.candidates[kind]
        slots = candidate.room.slots
        least = spec.num_experts * (2 if around.spread else 1)
        with_replicas = self._slots_with_replicas(kind)
        most = max(
            least, most_slots(spec.num_experts, kind, with_replicas, self.constraints.redundancy)
        )
        plain = self._placed(kind, around, slots, least)
        if most == least:
            return plain
        copied = self._placed(kind, around, with_replicas, most)
        if copied.seconds < plain.seconds * (1 - _WORTH_REPLICAS):
            return replace(copied, other_seconds=plain.seconds)
        return replace(plain, other_seconds=copied.seconds)

    def _placed(
        self, kind: WorkerKind, around: Surroundings, slots: tuple[int, ...], num_slots: int
    ) -> ReplicaChoice:
        result = self._place_slots(kind, around, slots, num_slots)
        return ReplicaChoice(result, num_slots, float(result.layer_seconds_L @ self.load.times_L))

    def place_split(self, kind: WorkerKind, load: ExpertLoad, tokens: float) -> PlacementResult:
        """One replica each of some layers' experts, for timing a mixed worker."""
        candidate = self.candidates[kind]
        problem = expert_problem(
            self.context,
            kind,
            candidate.room.slots,
            load,
            tokens,
            candidate.share_P,
            Surroundings.alone(kind.num_devices),
            self.context.spec.num_experts,
        )
        return place_experts(problem, seed=self.seed)

    def _place_slots(
        self, kind: WorkerKind, around: Surroundings, slots: tuple[int, ...], num_slots: int
    ) -> PlacementResult:
        candidate = self.candidates[kind]
        problem = expert_problem(
            self.context,
            kind,
            slots,
            self.load,
            self.tokens[kind],
            candidate.share_P,
            around,
            num_slots,
        )
        return place_experts(problem, seed=self.seed)

    def _slots_with_replicas(self, kind: WorkerKind) -> tuple[int, ...]:
        """A mixed worker's slots are already all that it has room for; like devices get more
        where the cache still holds what is asked."""
        room = self.candidates[kind].room
        if kind.is_mixed:
            return room.slots
        wanted = self.context.spec.num_experts * (1 + self.constraints.redundancy)
        slots = (math.ceil(wanted / kind.num_devices),)
        wider = room_for_slots(
            self.context.spec, self.context.cluster, kind, slots, self.workload, self.constraints
        )
        return slots if not wider.shortfall else room.slots
