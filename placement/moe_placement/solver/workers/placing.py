"""The experts of one worker: the question to `place_experts`, with and without replicas.

Shapes: P parts, L distinct MoE layers, E experts, N ranks of the worker.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_placement.solver.problem import ExpertPlacement, ExpertProblem, Floats, Ints
from moe_placement.solver.workers.bridge import Bridge
from moe_placement.solver.workers.part_cost import CostContext
from moe_placement.solver.workers.worker import WorkerKind


@dataclass(frozen=True, slots=True, eq=False)
class ExpertLoad:
    """How rows spread over experts, each distinct layer once.

    Attributes:
        share_LE: share of a layer's rows that each expert has.
        times_L: layers of the model that are like each.
        layer_M: which of the distinct layers each MoE layer of the model is like.
    """

    share_LE: Floats
    times_L: Floats
    layer_M: Ints

    @staticmethod
    def of(
        shares_ME: NDArray[np.float64] | None,
        num_layers: int,
        num_experts: int,
        *,
        distinct: bool = False,
    ) -> "ExpertLoad":
        """The layers of a load, those that are alike once; even where there is none.

        Args:
            distinct: layers alike stay apart, as they must where an old plan placed them apart.
        """
        if shares_ME is None or not num_layers:
            shares_ME = np.full((num_layers, num_experts), 1 / max(num_experts, 1))
        total_M1 = shares_ME.sum(1, keepdims=True)
        if distinct or not num_layers:
            return ExpertLoad(shares_ME / total_M1, np.ones(num_layers), np.arange(num_layers))
        share_LE, layer_M = np.unique(shares_ME / total_M1, axis=0, return_inverse=True)
        layer_M = layer_M.reshape(-1)
        return ExpertLoad(share_LE, np.bincount(layer_M).astype(float), layer_M)

    def sample(self, num_layers: int) -> "ExpertLoad":
        """At most so many layers, from the most even to the least, that stand for all."""
        if len(self.share_LE) <= num_layers:
            return self
        order = np.argsort(self.share_LE.max(1), kind="stable")
        chosen = order[((np.arange(num_layers) + 0.5) * len(order) / num_layers).astype(int)]
        times_L = np.full(num_layers, self.times_L.sum() / num_layers)
        return ExpertLoad(self.share_LE[chosen], times_L, np.empty(0, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """Where a worker's ranks are, and what they hold already.

    Attributes:
        domain_N: failure domain of each rank.
        spread: no single domain may hold all replicas of an expert.
        old: the placement in force on these ranks.
        move_bytes: most bytes to load on them.
        even: replicas of an expert share its rows evenly.
    """

    domain_N: Ints
    spread: bool = False
    old: ExpertPlacement | None = None
    move_bytes: float | None = None
    even: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for surroundings in which a worker is placed alike."""
        old = id(self.old) if self.old is not None else None
        return self.domain_N.tobytes(), self.spread, old

    @staticmethod
    def alone(num_ranks: int) -> "Surroundings":
        return Surroundings(np.zeros(num_ranks, np.int64))


def expert_problem(
    context: CostContext,
    kind: WorkerKind,
    slots: tuple[int, ...],
    load: ExpertLoad,
    tokens: float,
    share_P: Floats,
    around: Surroundings,
    num_slots: int,
) -> ExpertProblem:
    """One worker's experts at a step of so many tokens.

    Args:
        slots: of a rank of each part.
        share_P: of the tokens, by part.
        num_slots: to use in each layer.
    """
    spec, parts = context.spec, kind.parts
    size_P = np.array([part.num_devices for part in parts])
    held_P = size_P * np.array(slots)
    mass_P = held_P / max(held_P.sum(), 1)
    link_P = Bridge.of(context, parts).row_seconds(mass_P, share_P)
    bytes_P = np.array([spec.expert_bytes(part.weight_format) for part in parts], float)
    part_N = np.repeat(np.arange(len(parts)), size_P)
    return ExpertProblem(
        rows_LE=load.share_LE * (tokens * spec.num_experts_per_token),
        flops_per_row=2.0 * spec.mlp.expert,
        expert_bytes_N=bytes_P[part_N],
        slots_N=np.array(slots)[part_N],
        curves=tuple(context.expert_curve(part) for part in parts),
        curve_N=part_N,
        row_seconds_N=link_P[part_N],
        num_slots=num_slots,
        node_N=np.zeros_like(around.domain_N),
        domain_N=around.domain_N,
        spread=around.spread,
        old=around.old,
        move_bytes=around.move_bytes,
        even=around.even,
    )


def most_slots(
    num_experts: int, kind: WorkerKind, slots: tuple[int, ...], redundancy: float
) -> int:
    """Slots of one layer: those that there are, or as many as the redundancy allows."""
    held = sum(n * part.num_devices for n, part in zip(slots, kind.parts, strict=True))
    return min(held, math.floor(num_experts * (1 + redundancy)))
