"""All workers that fit on a cluster, and how nearly the others do."""

from collections.abc import Callable
from dataclasses import dataclass

from moe_placement.serving.mixture import RequestShape
from moe_placement.serving.workload import Workload
from moe_placement.solver.constraints import Constraints
from moe_placement.solver.workers.candidate import Candidate, make_candidate
from moe_placement.solver.workers.part_cost import CostContext
from moe_placement.solver.workers.placing import ExpertLoad
from moe_placement.solver.workers.room import Room, find_room, holds_pairs
from moe_placement.solver.workers.worker import WorkerKind
from moe_placement.solver.workers.worker_kinds import mixed_kinds, single_kinds

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Attributes:
    by_kind: the workers that fit.
    misfits: the others, with what they lack.
    """

    by_kind: dict[WorkerKind, Candidate]
    misfits: tuple[tuple[WorkerKind, Room], ...]


def find_candidates(
    context: CostContext,
    workload: Workload,
    request: RequestShape,
    load: ExpertLoad,
    constraints: Constraints,
    *,
    copies: int = 1,
    paired: bool = False,
    progress: Progress | None = None,
) -> Candidates:
    """Cut the cluster into every worker that may serve, and time those that fit.

    Args:
        copies: of all experts that a worker must have room for.
        paired: workers without room for each expert in two failure domains are left out.
        progress: called with what is done, how much of it, of how much.
    """
    kinds = [
        *single_kinds(context.cluster, constraints),
        *mixed_kinds(context.cluster, constraints),
    ]
    fitting: dict[WorkerKind, Candidate] = {}
    misfits = []
    for number, kind in enumerate(kinds):
        room = find_room(context.spec, context.cluster, kind, workload, constraints, copies)
        if paired and not holds_pairs(context.spec, context.cluster, kind, room.slots):
            continue
        if room.shortfall:
            misfits.append((kind, room))
        else:
            fitting[kind] = make_candidate(context, kind, room, load, request, constraints)
        if progress is not None:
            progress("workers", number + 1, len(kinds))
    return Candidates(fitting, tuple(misfits))
