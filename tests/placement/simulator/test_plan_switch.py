"""Plan switches that move bytes, and load that drifts under a plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from moe_placement.cost.step_shape import StepShape
from moe_placement.load.trace import ExpertLoad
from moe_placement.simulator.deployment import SimulatedDeployment, SimulatedLink
from moe_placement.simulator.drift import MoveCost, follow_load, rank_imbalance
from moe_placement.simulator.errors import SimulationError
from moe_placement.simulator.from_timers import together
from moe_placement.simulator.incidents import PlanSwitch
from moe_placement.simulator.part_timers import PartTimer, SlowedExperts
from moe_placement.simulator.simulation import simulate
from moe_placement.solver.problem import ExpertPlacement

Make = Callable[..., Any]


@dataclass(frozen=True)
class TwoParts:
    """Ten milliseconds of attention and thirty of experts."""

    def parts(self, shape: StepShape) -> Mapping[str, float]:
        return {"attention": 0.01, "experts": 0.03} if shape.num_tokens else {}

    def seconds(self, shape: StepShape) -> float:
        return sum(self.parts(shape).values())


def with_switches(deployment: SimulatedDeployment, *switches: PlanSwitch) -> SimulatedDeployment:
    link = SimulatedLink(name="expert moves")
    return replace(deployment, links=(link,), switches=switches)


@pytest.mark.parametrize(
    ("overlaps", "bytes_per_step", "seconds"),
    [
        # Ten steps as planned before, the pause, and the rest at half the price.
        (False, float("inf"), 11 * 0.01 + 0.4 + 19 * 0.005),
        # Four steps that each take a tenth of a second more, or instead.
        (False, 1e6, 14 * 0.01 + 0.4 + 16 * 0.005),
        (True, 1e6, 10 * 0.01 + 0.4 + 16 * 0.005),
    ],
)
def test_moves_take_their_time_and_then_pay(
    make_timer: Make,
    make_limits: Make,
    make_requests: Make,
    overlaps: bool,
    bytes_per_step: float,
    seconds: float,
) -> None:
    switch = PlanSwitch(
        worker=0,
        at=0.095,
        timer=make_timer(0.005),
        num_bytes=4e6,
        link="expert moves",
        bandwidth=1e7,
        bytes_per_step=bytes_per_step,
        overlaps=overlaps,
    )
    deployment = with_switches(together(make_timer(0.01), make_limits()), switch)
    result = simulate(deployment, make_requests(1, output=30), seed=0)
    assert result.seconds == pytest.approx(seconds)
    assert result.link_bytes == {"expert moves": 4e6}


def test_an_idle_worker_moves_meanwhile(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    switch = PlanSwitch(worker=0, at=1.0, timer=make_timer(0.005), num_bytes=4e6, bandwidth=1e6)
    deployment = with_switches(together(make_timer(0.01), make_limits()), switch)
    late, later = (
        simulate(deployment, [replace(one, arrival=at) for one in make_requests(1)], seed=0)
        for at in (4.5, 6.0)
    )
    # Half a second was left to move, in the first step.
    assert late.end_to_end.mean == pytest.approx(0.5 + 0.01 + 9 * 0.005)
    assert later.end_to_end.mean == pytest.approx(10 * 0.005)


def test_a_second_switch_waits_for_the_first(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    moving = PlanSwitch(
        worker=0, at=0.0, timer=make_timer(0.005), num_bytes=3e6, bandwidth=1e7, bytes_per_step=1e6
    )
    drifting = PlanSwitch(worker=0, at=0.001, timer=make_timer(0.02))
    deployment = with_switches(together(make_timer(0.01), make_limits()), moving, drifting)
    result = simulate(deployment, make_requests(1, output=5), seed=0)
    assert result.seconds == pytest.approx(3 * (0.01 + 0.1) + 2 * 0.02)


def make_load(*windows: list[int]) -> ExpertLoad:
    counts_TLE = np.array(windows, np.int64)[:, None, :]
    return ExpertLoad(model="m", layers=(0,), counts_TLE=counts_TLE, steps_per_window=1)


def place(*experts: int) -> ExpertPlacement:
    """Two ranks with two slots each, every expert once."""
    return ExpertPlacement(
        expert_LS=np.array([experts]),
        rank_LS=np.array([[0, 0, 1, 1]]),
        weight_LS=np.ones((1, 4)),
    )


def test_imbalance_is_the_fullest_rank_over_the_mean() -> None:
    assert rank_imbalance(place(0, 1, 2, 3), make_load([4, 2, 1, 1])) == pytest.approx(1.5)
    assert rank_imbalance(place(0, 3, 1, 2), make_load([4, 2, 1, 1])) == pytest.approx(1.25)


def test_drift_slows_the_experts_until_a_new_plan_is_moved(
    make_limits: Make, make_requests: Make
) -> None:
    load = make_load([1, 1, 1, 1], [2, 2, 1, 1], [2, 2, 1, 1])
    asked: list[ExpertLoad] = []

    def replan(seen: ExpertLoad, old: ExpertPlacement) -> ExpertPlacement:
        asked.append(seen)
        return place(0, 2, 1, 3)

    kept, followed = (
        tuple(
            follow_load(
                TwoParts(),
                load,
                place(0, 1, 2, 3),
                worker=0,
                window_seconds=1.0,
                replan=replan if replans else None,
                replan_windows=2,
                move=MoveCost(
                    expert_bytes_N=np.array([1e6, 1e6]), link="expert moves", bandwidth=1e7
                ),
            )
        )
        for replans in (False, True)
    )
    assert [switch.at for switch in kept] == [1.0, 2.0]
    slowed = SlowedExperts(TwoParts(), pytest.approx(4 / 3))
    assert kept[0].timer == slowed and kept[1].timer == slowed
    assert followed[1].timer == SlowedExperts(TwoParts(), pytest.approx(1.0))
    # Two experts change places.
    assert (followed[0].num_bytes, followed[1].num_bytes) == (0.0, 2e6)
    assert len(asked) == 1 and asked[0].num_windows == 2
    # It sees what came before, and nothing of what it is to serve.
    assert asked[0].counts_TLE.sum(axis=(1, 2)).tolist() == [4, 6]
    deployment = with_switches(together(TwoParts(), make_limits()), *followed)
    result = simulate(deployment, make_requests(1, output=75), seed=0)
    # 0.04 s in the first window, 0.05 in the second, and the move in the first step behind it.
    assert result.seconds == pytest.approx(25 * 0.04 + 21 * 0.05 + 0.2 + 29 * 0.04)
    assert result.link_bytes["expert moves"] == 2e6


def test_a_part_timer_counts_what_a_rank_does_alone() -> None:
    shape = StepShape(decode_sequences=1)
    assert PartTimer(TwoParts()).seconds(shape) == 0.01
    assert PartTimer(TwoParts(), {"experts"}).seconds(shape) == 0.03


def test_a_switch_that_could_never_end_is_named(make_timer: Make) -> None:
    with pytest.raises(SimulationError, match="moves 1 bytes, 0 a step at inf bytes/s; give"):
        PlanSwitch(worker=0, at=0.0, timer=make_timer(), num_bytes=1, bytes_per_step=0)


def test_a_switch_before_the_start_is_named(make_timer: Make) -> None:
    with pytest.raises(SimulationError, match="worker 0 switches at -1 s; give a time of 0"):
        PlanSwitch(worker=0, at=-1.0, timer=make_timer())


@pytest.mark.parametrize(("seconds", "windows"), [(0.0, 1), (1.0, 0)])
def test_load_is_followed_in_windows_that_take_time(seconds: float, windows: int) -> None:
    switches = follow_load(
        TwoParts(),
        make_load([1, 1, 1, 1], [1, 1, 1, 1]),
        place(0, 1, 2, 3),
        worker=0,
        window_seconds=seconds,
        replan_windows=windows,
    )
    with pytest.raises(SimulationError, match="they must be above 0 and at least 1"):
        next(switches)
