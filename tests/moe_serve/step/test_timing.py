"""Where a step's seconds go, over a local dispatcher: parts add up, segments get their work."""

from collections.abc import Callable, Mapping

import pytest
import torch
from moe_comm.local import LocalDispatcher
from moe_comm.routing import RoutingTable
from moe_devices.pacer import DeadlinePacer, RealTime, SegmentCount
from moe_devices.work import AttentionWork, ExpertsWork, Work

from moe_serve.step.expert_load import ExpertCounter
from moe_serve.step.timing import TimedDispatcher, Timer, attention_work
from moe_serve.types import Batch, Chunk

SLOTS = (2, 0, 1, 3)
BATCH = Batch(
    (
        Chunk("a", 10, (7,), (0,), True),
        Chunk("b", 4, (1, 2, 3), (1,), False),
        Chunk("c", 20, (9,), (2,), True),
    )
)


class Notes:
    """Implements Pacer: writes down what it is told."""

    is_real = False

    def __init__(self) -> None:
        self.works: list[Work] = []
        self.begun: list[float] = []

    @property
    def counts(self) -> Mapping[str, SegmentCount]:
        return {}

    def wait(self, begun: float, work: Callable[[], Work]) -> None:
        self.begun.append(begun)
        self.works.append(work())


def step(timer: Timer, ids: list[list[int]], layers: tuple[int, ...] = (1, 2)) -> TimedDispatcher:
    """The dispatches of one step; layer 0 is dense."""
    tables = {layer: RoutingTable(layer, [SLOTS], [(1.0,) * 4], 4) for layer in layers}
    dispatcher = TimedDispatcher(LocalDispatcher(tables), timer)
    timer.start()
    timer.start_model(BATCH)
    ids_TK = torch.tensor(ids)
    x_TD = torch.ones(len(ids), 8)
    for layer in layers:
        weights_TK = torch.full(ids_TK.shape, 0.5)
        keys_T = torch.arange(len(ids))
        pending = dispatcher.start(layer, x_TD, ids_TK, weights_TK, keys_T)
        rows, handle = pending.finish()
        dispatcher.start_combine(rows.rows_RD, handle).finish()
    timer.end_attention(None)
    return dispatcher


def test_segments_cover_every_layer_once_and_know_their_work() -> None:
    notes = Notes()
    dispatcher = step(Timer(notes), [[0, 2], [2, 3], [2, 1]])
    experts = ExpertsWork((3, 1, 1, 1))
    attention = [work for work in notes.works if isinstance(work, AttentionWork)]
    assert [(work.first_layer, work.end_layer) for work in attention] == [(0, 2), (2, 3), (3, None)]
    assert [work for work in notes.works if work not in attention] == [experts, experts]
    assert notes.begun == sorted(notes.begun)
    assert dispatcher.num_rows == 12


def test_a_step_begins_at_the_first_layer_again() -> None:
    notes = Notes()
    timer = Timer(notes)
    step(timer, [[0, 1]], layers=(1,))
    step(timer, [[0, 1]], layers=(1,))
    covered = [
        (work.first_layer, work.end_layer)
        for work in notes.works
        if isinstance(work, AttentionWork)
    ]
    assert covered == [(0, 2), (2, None)] * 2


def test_attention_work_counts_what_each_token_attends_to() -> None:
    work = attention_work(BATCH, 2, 3)
    assert (work.num_prompt_tokens, work.prompt_context) == (3, 5 + 6 + 7)
    assert (work.num_decoding, work.decode_context) == (2, 11 + 21)
    assert attention_work(Batch(), 0, None) == AttentionWork(first_layer=0, end_layer=None)


def test_parts_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that jumps ahead by another power of two at every look."""
    looks: list[float] = []

    def tick() -> float:
        looks.append(float(2 ** len(looks)))
        return looks[-1]

    timer = Timer(RealTime())
    monkeypatch.setattr("moe_serve.step.timing.time.perf_counter", tick)
    step(timer, [[0, 2], [2, 3]])
    monkeypatch.undo()
    assert set(timer.seconds) == {"dense", "dispatch", "experts"}
    assert sum(timer.seconds.values()) == looks[-1] - looks[0]


def test_declared_seconds_land_in_the_part_that_they_are_of() -> None:
    declared = {"attention": 0.004, "experts": 0.02}
    timer = Timer(DeadlinePacer(lambda work: declared[work.segment], 1.0))
    step(timer, [[0, 2], [2, 3]])
    assert timer.seconds["dense"] >= 3 * 0.004 - 0.001
    assert timer.seconds["experts"] >= 2 * 0.02 - 0.001
    assert timer.num_segments == 5


def test_experts_slower_than_their_deadline_are_counted() -> None:
    timer = Timer(DeadlinePacer(lambda work: 1e-9 if work.segment == "experts" else 0.0, 1.0))
    step(timer, [[0, 2]])
    assert (timer.num_segments, timer.num_overruns) == (2, 2)


def test_a_real_device_has_no_segments() -> None:
    timer = Timer(RealTime())
    step(timer, [[0, 2]])
    assert (timer.num_segments, timer.num_overruns) == (0, 0)
    assert timer.seconds["dense"] > 0


@pytest.mark.parametrize("num_tokens", [0, 5])
def test_the_dispatcher_gives_what_the_inner_one_gives(num_tokens: int) -> None:
    table = {0: RoutingTable(0, [SLOTS], [(1.0,) * 4], 4)}
    dispatchers = LocalDispatcher(table), TimedDispatcher(LocalDispatcher(table), Timer(Notes()))
    generator = torch.Generator().manual_seed(1)
    x_TD = torch.randn(num_tokens, 8, generator=generator)
    ids_TK = torch.randint(4, (num_tokens, 2), generator=generator)
    results = []
    for dispatcher in dispatchers:
        weights_TK = torch.full((num_tokens, 2), 0.5)
        pending = dispatcher.start(0, x_TD, ids_TK, weights_TK, torch.arange(num_tokens))
        rows, handle = pending.finish()
        results.append(dispatcher.start_combine(rows.rows_RD * 2, handle).finish())
    assert torch.equal(*results)


def test_counting_is_a_part_and_passes_through_experts_can_be_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = ExpertCounter((1, 2), 4)
    tables = {layer: RoutingTable(layer, [SLOTS], [(1.0,) * 4], 4) for layer in (1, 2)}
    timer = Timer(RealTime())
    dispatcher = TimedDispatcher(LocalDispatcher(tables), timer, load)
    noted = dispatcher.note_expert_seconds()
    clock = [0.0]
    monkeypatch.setattr("moe_serve.step.timing.time.perf_counter", lambda: clock[0])
    count = load.count

    def count_for_a_second(layer: int, ids_TK: torch.Tensor) -> None:
        count(layer, ids_TK)
        clock[0] += 1.0

    monkeypatch.setattr(load, "count", count_for_a_second)
    timer.start()
    for layer in (1, 2):
        ids_TK, weights_TK = torch.tensor([[0, 2]]), torch.full((1, 2), 0.5)
        pending = dispatcher.start(layer, torch.ones(1, 8), ids_TK, weights_TK, torch.arange(1))
        rows, handle = pending.finish()
        clock[0] += 10.0 * layer
        dispatcher.start_combine(rows.rows_RD, handle).finish()
    monkeypatch.undo()
    assert noted == [10.0, 20.0]
    assert timer.seconds["counting"] == 2.0 and timer.seconds["experts"] == 30.0
    assert timer.seconds["dispatch"] == timer.seconds["dense"] == 0.0
