"""When experts should move to where the load has gone, what should move, and what that gains."""

from dataclasses import dataclass, replace

import numpy as np

from moe_placement.solver.moving.move_order import MoveBatch, order_moves
from moe_placement.solver.moving.moves import added
from moe_placement.solver.place import PlacementResult, place_experts
from moe_placement.solver.problem import ExpertPlacement, ExpertProblem, Floats

# Of the bytes of all moves that gain anything: the first quarter gains most of it.
_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePolicy:
    """What moving costs, and how long its gain lasts.

    Attributes:
        bytes_per_second: at which one rank loads experts while it serves; ranks load side by side.
        step_bytes: most bytes of experts to load during one step, all ranks together.
        horizon_steps: steps until the load will have changed again.
    """

    bytes_per_second: float
    step_bytes: float
    horizon_steps: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rebalance:
    """Attributes:
    placement: what to run from now on: the new one, or the old replicas with new weights.
    batches: the moves in their order; empty where moving does not pay.
    gain_seconds: of each step, as it is expected to go, of moving over new weights alone.
    cost_seconds: that the busiest rank loads.
    bytes_moved: of experts, all ranks together.
    reason: one sentence for people.
    """

    placement: ExpertPlacement
    batches: tuple[MoveBatch, ...]
    gain_seconds: float
    cost_seconds: float
    bytes_moved: float
    reason: str

    @property
    def break_even_steps(self) -> float:
        """Steps after which the gain has paid for the loading; infinite where there is none."""
        return self.cost_seconds / self.gain_seconds if self.gain_seconds > 0 else float("inf")


def rebalance(problem: ExpertProblem, policy: MovePolicy, *, seed: int = 0) -> Rebalance:
    """Decide whether to leave the problem's old placement for one that suits its rows.

    The old replicas with weights split anew cost nothing to move to; what counts is the gain over
    them, until the horizon, against the seconds of loading. All moves that gain anything are
    weighed, and the best of them for a share of their bytes.
    """
    assert problem.old is not None
    stay = place_experts(replace(problem, move_bytes=0.0), seed=seed)
    whole = _Departure.of(problem, stay, place_experts(problem, seed=seed), policy)
    part = whole
    if whole.bytes_moved:
        fewer = replace(problem, move_bytes=_SHARE * whole.bytes_moved)
        part = _Departure.of(problem, stay, place_experts(fewer, seed=seed), policy)
    best = max(whole, part, key=lambda one: one.profit)
    reason = _reason(best.gain, best.cost, policy.horizon_steps)
    if not best.bytes_moved or best.profit <= 0:
        return Rebalance(
            placement=stay.placement,
            batches=(),
            gain_seconds=best.gain,
            cost_seconds=best.cost,
            bytes_moved=0.0,
            reason=f"the experts stay: {reason}",
        )
    return Rebalance(
        placement=best.placement,
        batches=order_moves(
            problem, best.placement, gain_L=best.gain_L, step_bytes=policy.step_bytes
        ),
        gain_seconds=best.gain,
        cost_seconds=best.cost,
        bytes_moved=best.bytes_moved,
        reason=f"the experts move: {reason}",
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Departure:
    """One placement to move to.

    Attributes:
        gain_L: seconds of each step, over new weights alone.
        cost: seconds that the busiest rank loads.
        profit: seconds until the horizon, less the cost.
    """

    placement: ExpertPlacement
    gain_L: Floats
    gain: float
    cost: float
    bytes_moved: float
    profit: float

    @staticmethod
    def of(
        problem: ExpertProblem, stay: PlacementResult, leave: PlacementResult, policy: MovePolicy
    ) -> "_Departure":
        assert problem.old is not None
        loaded_N = _loaded(problem.old, leave.placement, problem.expert_bytes_N)
        gain_L = stay.expected_L - leave.expected_L
        gain = max(0.0, float(gain_L.sum()))
        cost = float(loaded_N.max()) / policy.bytes_per_second
        profit = gain * policy.horizon_steps - cost
        return _Departure(leave.placement, gain_L, gain, cost, float(loaded_N.sum()), profit)


def _loaded(old: ExpertPlacement, new: ExpertPlacement, expert_bytes_N: Floats) -> Floats:
    """Bytes of experts that each rank loads."""
    rank_X = added(old, new)[:, 2]
    loaded_N: Floats = np.bincount(rank_X, minlength=len(expert_bytes_N)) * expert_bytes_N
    return loaded_N


def _reason(gain: float, cost: float, horizon: int) -> str:
    if not gain:
        return "no placement in reach is faster"
    return (
        f"{gain * 1e6:.3g} us less a step pay for {cost:.3g} s of loading after {cost / gain:.0f} "
        f"steps, and the load is taken to last {horizon}"
    )
