"""Expert load that drifts under a plan, and plans that follow it, as switches of a worker.

Shapes: L MoE layers, S slots of one layer, N ranks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf

import numpy as np

from moe_placement.load.trace import ExpertLoad
from moe_placement.simulator.errors import SimulationError
from moe_placement.simulator.incidents import PlanSwitch
from moe_placement.simulator.part_timers import PartedTimer, SlowedExperts
from moe_placement.solver.moving.moves import moved_bytes
from moe_placement.solver.problem import ExpertPlacement, Floats

Replan = Callable[[ExpertLoad, ExpertPlacement], ExpertPlacement]


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveCost:
    """What it takes to load experts from rank to rank; see PlanSwitch.

    Attributes:
        expert_bytes_N: bytes of one expert in each rank's weight format.
    """

    expert_bytes_N: Floats
    link: str = ""
    bandwidth: float = inf
    bytes_per_step: float = inf
    overlaps: bool = False


def rank_imbalance(placement: ExpertPlacement, load: ExpertLoad) -> float:
    """Rows of the fullest rank over the mean rank's, in the mean over layers."""
    num_ranks = int(placement.rank_LS.max()) + 1
    is_held = placement.expert_LS >= 0
    share_LS = np.take_along_axis(load.shares, np.where(is_held, placement.expert_LS, 0), axis=1)
    rows_LS = share_LS * placement.weight_LS * is_held
    num_layers = len(rows_LS)
    index_LS = placement.rank_LS + num_ranks * np.arange(num_layers)[:, None]
    rows = np.bincount(index_LS.ravel(), rows_LS.ravel(), num_layers * num_ranks)
    rows_LN = rows.reshape(num_layers, num_ranks)
    return float((rows_LN.max(axis=1) / rows_LN.mean(axis=1)).mean())


def follow_load(
    timer: PartedTimer,
    load: ExpertLoad,
    placement: ExpertPlacement,
    *,
    worker: int,
    window_seconds: float,
    replan: Replan | None = None,
    replan_windows: int = 1,
    move: MoveCost | None = None,
) -> Iterator[PlanSwitch]:
    """A switch at each window of the load, for what it makes of the experts' time.

    Args:
        timer: right for the first window under `placement`; experts take longer as ranks are
            less evenly loaded than then.
        replan: asked with the windows seen since the last plan; None keeps the placement.
        replan_windows: between two plans.
        move: what a new plan costs; None is nothing.

    Raises:
        SimulationError: windows that take no time, or plans between which there is none.
        LoadError: a layer has no tokens in one of the windows.
    """
    if not window_seconds > 0 or replan_windows < 1:
        raise SimulationError(
            f"window_seconds is {window_seconds:g} and replan_windows {replan_windows}; they must "
            "be above 0 and at least 1"
        )
    first = rank_imbalance(placement, load.window(0, 1))
    for number in range(1, load.num_windows):
        window, num_bytes = load.window(number, number + 1), 0.0
        if replan is not None and number % replan_windows == 0:
            old, seen = placement, load.window(number - replan_windows, number)
            placement = replan(seen, old)
            num_bytes = moved_bytes(old, placement, move.expert_bytes_N) if move else 0.0
        yield PlanSwitch(
            worker=worker,
            at=number * window_seconds,
            timer=SlowedExperts(timer, rank_imbalance(placement, window) / first),
            num_bytes=num_bytes,
            link=move.link if move else "",
            bandwidth=move.bandwidth if move else inf,
            bytes_per_step=move.bytes_per_step if move else inf,
            overlaps=move.overlaps if move else False,
        )
