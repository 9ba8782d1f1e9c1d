"""From one plan to the next on one rank: experts come beside its steps, and all switch at once."""

import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace

from moe_comm.dispatcher import Dispatcher
from moe_comm.header import StepHeader
from moe_comm.local import LocalDispatcher
from moe_comm.routing import RoutingTable
from moe_kernels.ops import Packed
from moe_placement.plan import LayerPlan, Plan

from moe_serve.errors import CheckpointError
from moe_serve.layers.linear import ExpertsLayer
from moe_serve.messages import PlanChange, RankStats
from moe_serve.models.expert_reader import ExpertReader
from moe_serve.step.move_budget import MoveBudget, MoveLimits

logger = logging.getLogger(__name__)

_PIECES_PER_STEP = 16


@dataclass(slots=True)
class _Way:
    """To the next plan.

    Attributes:
        sources: of the experts of each layer that changes, in slot order.
        is_ready: nothing is left to load.
    """

    plan: Plan
    num_to_load: int
    loading: Generator[int]
    sources: dict[int, list[tuple[Packed, int]]] = field(default_factory=dict)
    tables: dict[int, RoutingTable] = field(default_factory=dict)
    is_ready: bool = False


class ExpertMover:
    """Old and new experts lie side by side until the header says that all ranks are ready.

    Args:
        plan: in force.
        layers: this rank's experts, by the model's layer.
        tables_of: a plan's routing tables for this rank's EP group.
    """

    def __init__(
        self,
        rank: int,
        plan: Plan,
        layers: Mapping[int, ExpertsLayer],
        reader: ExpertReader | None,
        dispatcher: Dispatcher,
        tables_of: Callable[[Plan], Mapping[int, RoutingTable]],
        limits: MoveLimits,
    ) -> None:
        self._rank = rank
        self._plan = plan
        self._layers = layers
        self._reader = reader
        self._dispatcher = dispatcher
        self._tables_of = tables_of
        self._limits = limits
        self._tables = tables_of(plan)
        self._way: _Way | None = None
        self._budget = MoveBudget(limits)
        self._given_up = 0
        self._moved_bytes = 0

    @staticmethod
    def of_no_experts(rank: int, plan: Plan) -> "ExpertMover":
        """Of ranks that share no experts: nothing ever moves."""
        limits = MoveLimits(bytes_per_step=1, expert_bytes=1, room=0)
        return ExpertMover(rank, plan, {}, None, LocalDispatcher({}), lambda plan: {}, limits)

    def without_experts(self) -> "ExpertMover":
        """Of the same ranks, when the model is gone."""
        return ExpertMover.of_no_experts(self._rank, replace(self._plan, layers={}))

    @property
    def plan(self) -> Plan:
        """In force."""
        return self._plan

    @property
    def epoch(self) -> int:
        return self._plan.epoch

    @property
    def ready_epoch(self) -> int:
        way = self._way
        return way.plan.epoch if way is not None and way.is_ready else self._plan.epoch

    @property
    def given_up_epoch(self) -> int:
        """Of the newest plan that this rank, or any of its EP group, could not make ready."""
        return self._given_up

    @property
    def is_loading(self) -> bool:
        way = self._way
        return way is not None and not way.is_ready and way.plan.epoch > self._given_up

    def take(self, change: PlanChange) -> None:
        """Begin to make a plan ready; where that cannot be, the step header will say so."""
        if change.epoch <= self._given_up:
            return
        if change.base_epoch != self.epoch or self._way is not None:
            self._give_up(change.epoch, f"it changes the plan of epoch {change.base_epoch}")
            return
        layers = {
            layer: LayerPlan(slots, change.weights[layer]) for layer, slots in change.slots.items()
        }
        plan = replace(self._plan, layers={**self._plan.layers, **layers}, epoch=change.epoch)
        if lacking := self.lacking(plan):
            why = f"while experts move, {lacking} bytes more are wanted than are free"
            self._give_up(change.epoch, why)
            return
        self._way = _Way(plan, self._num_to_load(layers), self._load(layers))
        self._budget.restart()

    def advance(self) -> None:
        """Load as much as one step may; to be called once beside each."""
        way = self._way
        if way is None or not self.is_loading:
            return
        try:
            way.is_ready = self._budget.spend(way.loading)
        except (CheckpointError, OSError, RuntimeError) as error:
            self._give_up(way.plan.epoch, str(error))

    def follow(self, header: StepHeader) -> bool:
        """Run, or drop, the plan that is on its way, where the header that all ranks of the EP
        group have says so -> whether it did."""
        self._given_up = max(self._given_up, header.given_up_epoch)
        way = self._way
        if way is None:
            return False
        if way.plan.epoch <= self._given_up:
            self._drop()
            return True
        if way.plan.epoch > header.ready_epoch:
            return False
        self._switch(way)
        return True

    def reach(self, epoch: int) -> None:
        """Run the plan of an epoch that others run already: the header that said so was lost."""
        if self._way is not None and self.epoch < epoch == self.ready_epoch:
            self._switch(self._way)

    def lacking(self, plan: Plan) -> int:
        """Bytes of room, for what a plan has here beside what the one in force has."""
        num_to_load = self._num_to_load(plan.layers)
        needed = (self._plan.num_slots(self._rank) + num_to_load) * self._limits.expert_bytes
        return max(0, needed - self._limits.room) if num_to_load else 0

    def prepare(self, plan: Plan, tables_of: Callable[[Plan], Mapping[int, RoutingTable]]) -> None:
        """Load, while no step is computed, what a plan has here and the one in force has not.

        Raises:
            CheckpointError, OSError: the checkpoint cannot be read any more.
        """
        self._drop()
        self._tables_of = tables_of
        layers = {
            layer: placed
            for layer, placed in plan.layers.items()
            if placed.slots[self._rank] != self._plan.layers[layer].slots[self._rank]
        }
        self._way = _Way(plan, self._num_to_load(layers), self._load(layers))
        for _ in self._way.loading:
            pass
        self._way.is_ready = True

    def commit(self) -> None:
        """Run what was prepared."""
        assert self._way is not None and self._way.is_ready
        self._tables = self._tables_of(self._way.plan)
        self._switch(self._way)

    def add_to(self, stats: RankStats) -> RankStats:
        """The same with what is known here."""
        seconds = {"moves": self._budget.seconds} if self._budget.seconds else {}
        return replace(
            stats,
            plan_epoch=self.epoch,
            given_up_epoch=self._given_up,
            num_experts_to_load=0 if self._way is None else self._way.num_to_load,
            moved_bytes=self._moved_bytes,
            step_seconds={**stats.step_seconds, **seconds},
        )

    def _load(self, layers: Mapping[int, LayerPlan]) -> Generator[int]:
        """Yields bytes of work that were done; a routing table counts as a whole step's."""
        piece_bytes = self._limits.bytes_per_step // _PIECES_PER_STEP
        for layer, placed in layers.items():
            assert self._way is not None and self._reader is not None
            held = self._plan.layers[layer].slots[self._rank]
            sources: list[tuple[Packed, int]] = []
            for expert in placed.slots[self._rank]:
                if expert in held:
                    sources.append((self._layers[layer].packed, held.index(expert)))
                else:
                    packed = yield from self._reader.read(layer, expert, piece_bytes)
                    sources.append((packed, 0))
                    self._way.num_to_load -= 1
                    self._moved_bytes += self._limits.expert_bytes
            self._way.sources[layer] = sources
            self._way.tables |= self._tables_of(replace(self._plan, layers={layer: placed}))
            yield self._limits.bytes_per_step

    def _num_to_load(self, layers: Mapping[int, LayerPlan]) -> int:
        rank, held = self._rank, self._plan.layers
        return sum(
            len(set(placed.slots[rank]) - set(held[layer].slots[rank]))
            for layer, placed in layers.items()
        )

    def _switch(self, way: _Way) -> None:
        for layer, sources in way.sources.items():
            self._layers[layer].replace(sources)
        self._tables = {**self._tables, **way.tables}
        self._dispatcher.replace_tables(self._tables)
        self._plan = way.plan
        self._drop()

    def _give_up(self, epoch: int, why: str) -> None:
        logger.warning("rank %d cannot run the plan of epoch %d: %s", self._rank, epoch, why)
        self._given_up = max(self._given_up, epoch)

    def _drop(self) -> None:
        self._way = None
        if self._reader is not None:
            self._reader.close()
