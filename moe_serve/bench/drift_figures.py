"""What the drift benchmark found, as rows: throughput, and the time between tokens, moving or not.

Shapes: G gaps between two tokens of an answer, M times in which experts moved.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from moe_placement.simulator.distribution import distribution_of
from numpy.typing import NDArray

from moe_serve.bench.drift_client import Look
from moe_serve.bench.stream import Stream
from moe_serve.bench.table import Row, Rows, target
from moe_serve.errors import ConfigError

Floats = NDArray[np.float64]
# By the tokens between which experts moved, over those before that.
_MOST_RATIO = 1.2
STAYS, REBALANCING = "plan stays", "rebalancing"


@dataclass(frozen=True, slots=True)
class Gaps:
    """Seconds between two tokens in one phase.

    Attributes:
        moving_G: while experts moved.
        before_G: while none did, before some did: under the plan that was left, the same prompts.
        after_G: all others.
    """

    moving_G: Floats
    before_G: Floats
    after_G: Floats

    @property
    def steady_G(self) -> Floats:
        return np.concatenate([self.before_G, self.after_G])

    def __add__(self, other: "Gaps") -> "Gaps":
        return Gaps(
            np.concatenate([self.moving_G, other.moving_G]),
            np.concatenate([self.before_G, other.before_G]),
            np.concatenate([self.after_G, other.after_G]),
        )

    @property
    def ratio(self) -> float | None:
        """p99 while moving over that before; None where there are none of either."""
        if not len(self.moving_G) or not len(self.before_G):
            return None
        return p99(self.moving_G) / p99(self.before_G)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPhase:
    """One phase of one run.

    Attributes:
        tokens_per_second: of prompts and answers.
        epoch, moved_bytes: of the plan, and of experts since the start, at the phase's end.
        load_over_mean: of the fullest rank, of late.
        overruns: share of the declared segments that took longer than declared.
    """

    run: str
    number: int
    gaps: Gaps
    tokens_per_second: float
    epoch: int
    moved_bytes: int
    load_over_mean: float
    overruns: float


def moving_times(looks: Sequence[Look]) -> Floats:
    """-> times_M2: begin and end of each; between two looks they did where either says so, or
    the plan is another one."""
    times: list[list[float]] = []
    for earlier, later in pairwise(looks):
        if not (earlier.is_moving or later.is_moving or earlier.epoch != later.epoch):
            continue
        if times and times[-1][1] == earlier.at:
            times[-1][1] = later.at
        else:
            times.append([earlier.at, later.at])
    return np.array(times, np.float64).reshape(-1, 2)


def split_gaps(streams: Iterable[Stream], times_M2: Floats) -> Gaps:
    """A gap counts as moving where any of it lies in a time of moving."""
    pairs = [pair for each in streams for pair in pairwise(each.times)]
    begin_G, end_G = np.array(pairs, np.float64).reshape(-1, 2).T
    begin_M, end_M = times_M2.T
    overlaps_GM = (begin_G[:, None] < end_M) & (end_G[:, None] > begin_M)
    is_moving_G = overlaps_GM.any(axis=1)
    is_before_G = ~is_moving_G & (end_G <= begin_M.max(initial=-np.inf))
    gap_G = end_G - begin_G
    return Gaps(gap_G[is_moving_G], gap_G[is_before_G], gap_G[~is_moving_G & ~is_before_G])


def p99(gap_G: Floats) -> float:
    return distribution_of(gap_G).p99


def drift_rows(title: str, phases: Sequence[DriftPhase]) -> Rows:
    """A row for each phase of each run, and what they should be.

    Raises:
        ConfigError: no experts moved, so that there is nothing to compare.
    """
    rows = [_row(title, phase) for phase in phases]
    by_run = {run: [phase for phase in phases if phase.run == run] for run in (STAYS, REBALANCING)}
    return [*rows, *_targets(by_run[STAYS], by_run[REBALANCING])]


def _row(title: str, phase: DriftPhase) -> Row:
    gaps = phase.gaps
    steady = distribution_of(gaps.steady_G)
    return {
        "of": title,
        "run": phase.run,
        "phase": phase.number,
        "tokens/s": phase.tokens_per_second,
        "p50 steady ms": steady.p50 * 1e3,
        "p99 steady ms": steady.p99 * 1e3,
        "p99 before ms": _milliseconds(gaps.before_G),
        "p99 moving ms": _milliseconds(gaps.moving_G),
        "ratio": "" if gaps.ratio is None else gaps.ratio,
        "gaps moving": len(gaps.moving_G),
        "epoch": phase.epoch,
        "moved MB": phase.moved_bytes / 1e6,
        "load / mean": phase.load_over_mean,
        "overruns": phase.overruns,
    }


def _milliseconds(gap_G: Floats) -> float | str:
    return p99(gap_G) * 1e3 if len(gap_G) else ""


def _targets(stays: Sequence[DriftPhase], moves: Sequence[DriftPhase]) -> Rows:
    """The last phase is the one in which the first plan fits the load the least."""
    gain = moves[-1].tokens_per_second / stays[-1].tokens_per_second
    found = [
        target(
            "throughput of the last phase: rebalancing over plan stays",
            "one phase",
            gain,
            1.0,
            at_least=True,
        )
    ]
    gaps = moves[0].gaps
    for phase in moves[1:]:
        gaps = gaps + phase.gaps
    window = f"{len(gaps.moving_G)} gaps moving, {len(gaps.before_G)} before"
    if gaps.ratio is None:
        raise ConfigError(
            f"drift: nothing to compare ({window}); raise --time-scale, or run on a quiet machine"
        )
    figure = "p99 between tokens: while experts move over before they do"
    return [*found, target(figure, window, gaps.ratio, _MOST_RATIO)]
