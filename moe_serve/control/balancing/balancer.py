"""Keeps the plan fit for the load while the server runs: looks, asks the solver, moves, waits."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from moe_placement.load.trace import Ints
from moe_placement.plan import LayerPlan, Plan

from moe_serve.control.balancing.balance import LoadQuestion, Rearrangement, ServedDeployment
from moe_serve.control.balancing.expert_load import ExpertLoadRecord
from moe_serve.control.balancing.plan_solver import PlanSolver
from moe_serve.errors import EngineDeadError
from moe_serve.messages import MembershipNews, PlanChange, RankStats

logger = logging.getLogger(__name__)

# Of each layer, in the mean of its experts; with fewer, chance would move them.
_LEAST_ROWS = 64
# Until ranks have told how fast they load.
_BYTES_PER_SECOND = 1e9
_STAGE_SECONDS = 600.0
_LOOK_SECONDS = 0.02
_KEPT_DECISIONS = 8


class Ranks(Protocol):
    """What a balancer needs of the engine's ranks."""

    @property
    def membership(self) -> MembershipNews:
        """Which plan ranks are gone, and what the others run since."""
        ...

    @property
    def rank_loads(self) -> Sequence[float]:
        """Expert rows that each rank computed of late, over the mean rank's."""
        ...

    def stats(self) -> Sequence[RankStats]: ...

    def change_plan(self, change: PlanChange) -> None:
        """Tell all ranks."""
        ...


@dataclass(frozen=True, slots=True)
class Moving:
    """Moves under way: towards `epoch`, stage `stage` of `num_stages`."""

    epoch: int
    stage: int
    num_stages: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Look:
    """What was known of an EP group when its load was last looked at."""

    counts_LE: Ints
    num_steps: int
    num_rows: int
    seconds: float


class _OvertakenError(Exception):
    """Ranks were lost or came back, and run another plan than what was asked or moved from."""


class Balancer:
    """
    Args:
        record: of the load that all ranks report.
    """

    def __init__(self, served: ServedDeployment, record: ExpertLoadRecord, ranks: Ranks) -> None:
        self._served = served
        self._record = record
        self._ranks = ranks
        self._solver = PlanSolver(served)
        self._moved = served.plan
        self._looks: dict[int, _Look] = {}
        self._looked_in = ranks.membership.epoch
        self._newest_epoch = served.plan.epoch
        self.moving: Moving | None = None
        self.num_given_up = 0
        self.decisions: deque[str] = deque(maxlen=_KEPT_DECISIONS)

    @property
    def plan(self) -> Plan:
        """In force: what moves have led to, or what the ranks run since some were lost or came
        back."""
        regrouped = self._ranks.membership.plan
        is_newer = regrouped is not None and regrouped.epoch > self._moved.epoch
        return regrouped if regrouped is not None and is_newer else self._moved

    async def run(self) -> None:
        """Rebalance, every so many seconds, until cancelled."""
        every = self._served.config.placement.rebalance_every
        if not every or not self.plan.num_experts:
            return
        self._look_anew()
        try:
            while True:
                await asyncio.sleep(every)
                try:
                    await self._consider_all()
                except _OvertakenError:
                    self._note(f"{self._changes()}: experts move again when there is new load")
                    self._look_anew()
        except EngineDeadError as error:
            self._note(f"experts stay where they are from now on: {error}")
        finally:
            self.moving = None
            await self._solver.close()

    def _groups(self) -> dict[int, list[int]]:
        """The ranks that are there of each EP group that has any."""
        lost = self._ranks.membership.lost
        groups = {
            group: [rank for rank in ranks if rank not in lost]
            for group, ranks in self.plan.ep_groups().items()
        }
        return {group: ranks for group, ranks in groups.items() if ranks}

    def _look_anew(self) -> None:
        self.moving = None
        self._looked_in = self._ranks.membership.epoch
        self._looks = {group: self._look(ranks) for group, ranks in self._groups().items()}

    def _require_same_ranks(self) -> None:
        if self._ranks.membership.epoch != self._looked_in:
            raise _OvertakenError

    def _changes(self) -> str:
        lost = self._ranks.membership.lost
        missing = f"plan ranks {', '.join(map(str, lost))} are lost"
        return f"the membership has changed, {missing if lost else 'all plan ranks are there'}"

    async def _consider_all(self) -> None:
        for group, ranks in self._groups().items():
            self._require_same_ranks()
            if not self._ranks.membership.refusal:
                await self._consider(group, ranks)

    async def _consider(self, group: int, ranks: Sequence[int]) -> None:
        last, now = self._looks[group], self._look(ranks)
        counts_LE = now.counts_LE - last.counts_LE
        num_steps = now.num_steps - last.num_steps
        if num_steps < 1 or counts_LE.sum(axis=1).min() < _LEAST_ROWS * counts_LE.shape[1]:
            return
        self._looks[group] = now
        question = LoadQuestion(
            plan=self.plan,
            lost=self._ranks.membership.lost,
            group=group,
            counts_LE=counts_LE.astype("<i8").tobytes(),
            num_steps=num_steps,
            row_seconds=(now.seconds - last.seconds) / max(1, now.num_rows - last.num_rows),
            bytes_per_second=self._loading_speed(),
        )
        answer = await self._solver.ask(question)
        self._require_same_ranks()
        self._note(answer.reason)
        if answer.stages:
            await self._move(answer)
            self._looks[group] = self._look(ranks)

    async def _move(self, answer: Rearrangement) -> None:
        for number, layers in enumerate(answer.stages):
            base = self.plan
            self._newest_epoch = max(self._newest_epoch, base.epoch) + 1
            self.moving = Moving(self._newest_epoch, number + 1, len(answer.stages), answer.reason)
            self._ranks.change_plan(self._change(base, layers))
            if not await self._has_switched(self._newest_epoch):
                self.num_given_up += 1
                self._note("a rank could not make the plan ready, the one before stays in force")
                break
            self._moved = replace(base, layers={**base.layers, **layers}, epoch=self._newest_epoch)
        self.moving = None

    def _change(self, base: Plan, layers: Mapping[int, LayerPlan]) -> PlanChange:
        return PlanChange(
            base_epoch=base.epoch,
            epoch=self._newest_epoch,
            slots={layer: placed.slots for layer, placed in layers.items()},
            weights={layer: placed.weights for layer, placed in layers.items()},
        )

    async def _has_switched(self, epoch: int) -> bool:
        """All ranks run the plan of this epoch; False where it was given up.

        Raises:
            EngineDeadError: neither came to be in good time.
        """
        deadline = time.monotonic() + _STAGE_SECONDS
        while time.monotonic() < deadline:
            self._require_same_ranks()
            stats = self._there()
            if any(rank.given_up_epoch >= epoch for rank in stats):
                return False
            if all(rank.plan_epoch >= epoch for rank in stats):
                return True
            await asyncio.sleep(_LOOK_SECONDS)
        raise EngineDeadError(f"the ranks did not come to run the plan of epoch {epoch}")

    def _there(self) -> list[RankStats]:
        lost = self._ranks.membership.lost
        return [each for rank, each in enumerate(self._ranks.stats()) if rank not in lost]

    def _look(self, ranks: Sequence[int]) -> _Look:
        stats = self._ranks.stats()
        return _Look(
            counts_LE=self._record.total_LE(self.plan.ep_group_of(ranks[0])),
            num_steps=max(stats[rank].num_steps for rank in ranks),
            num_rows=sum(stats[rank].num_expert_rows for rank in ranks),
            seconds=sum(stats[rank].step_seconds.get("experts", 0.0) for rank in ranks),
        )

    def _loading_speed(self) -> float:
        """Bytes per second of one rank."""
        stats = self._ranks.stats()
        seconds = sum(rank.step_seconds.get("moves", 0.0) for rank in stats)
        num_bytes = sum(rank.moved_bytes for rank in stats)
        return num_bytes / seconds if num_bytes and seconds else _BYTES_PER_SECOND

    def _note(self, decision: str) -> None:
        logger.info("placement.rebalance_every: %s", decision)
        self.decisions.append(decision)
