"""Time as it passes: observe, plan, meet the steps that come after, plan again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from moe_placement.bench.score import Scorer, StepScore
from moe_placement.load.generator import sampled_windows
from moe_placement.load.skew import Skew
from moe_placement.load.trace import Ints
from moe_placement.solver.moving.moves import moved_bytes
from moe_placement.solver.problem import ExpertPlacement, ExpertProblem

Placer = Callable[[ExpertProblem], ExpertPlacement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What passes.

    Attributes:
        num_tokens: of one step of all ranks.
        replan_steps: steps between plans; each sees the rows of that many steps before it.
        num_plans: how often; the first is free to load what it likes.
        stride: of so many steps one is observed and scored; popularity drifts through all.
    """

    skew: Skew
    num_tokens: int
    top_k: int = 8
    replan_steps: int = 500
    num_plans: int = 4
    stride: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Attributes:
    step_seconds: of the slowest rank in each layer, in the mean over time.
    imbalance: rows of the fullest rank over the mean's, in the mean over time and layers.
    bytes_per_replan: bytes of experts loaded for each plan but the first, in the mean.
    """

    step_seconds: float
    imbalance: float
    bytes_per_replan: float


def play(placer: Placer, problem: ExpertProblem, traffic: Traffic, *, seed: int) -> Outcome:
    """Run a placer through the traffic; those that are given the same seed meet the same rows.

    Args:
        problem: all but the rows and the old placement, which it is asked with as time passes.
    """
    windows, num_steps = _steps(traffic, seed), traffic.replan_steps // traffic.stride
    seen, old = list(islice(windows, num_steps)), problem.old
    scores: list[StepScore] = []
    loaded: list[float] = []
    for turn in range(traffic.num_plans):
        placement = placer(replace(problem, rows_LE=np.mean(seen, axis=0), old=old))
        if old is not None and turn:
            loaded.append(moved_bytes(old, placement, problem.expert_bytes_N))
        scorer = Scorer(placement, problem, seed=seed + turn)
        seen, old = list(islice(windows, num_steps)), placement
        scores += [scorer.score(rows_LE) for rows_LE in seen]
    return Outcome(
        step_seconds=float(np.mean([score.seconds for score in scores])),
        imbalance=float(np.mean([score.imbalance for score in scores])),
        bytes_per_replan=float(np.mean(loaded)) if loaded else 0.0,
    )


def _steps(traffic: Traffic, seed: int) -> Iterator[Ints]:
    skew, stride = traffic.skew, traffic.stride
    strided = replace(
        skew,
        drift_steps=skew.drift_steps / stride,
        switch_steps=skew.switch_steps // stride,
    )
    return sampled_windows(strided, top_k=traffic.top_k, num_tokens=traffic.num_tokens, seed=seed)
