"""Sequences whose prompt one rank computes for another, at both ends, without tensors."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from moe_serve.schedule.scheduler import Scheduler
from moe_serve.types import Request, SampledToken, StepOutput

PROMPT = tuple(range(1, 12))


class Afar:
    """A world whose requests may come from afar: writes what another rank would have computed."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.handovers = world.scheduler.handovers
        world.expects_nothing = True

    def add(self, request: Request) -> None:
        self.world.add(replace(request, prefill_rank=7))

    def land(self, request_id: str) -> None:
        held = self.handovers.held(request_id)
        assert held is not None
        request, size = self.world.requests[request_id], self.world.page_size
        for position in range(held.num_computed, len(request.prompt_ids) - 1):
            slot = held.page_ids[position // size], position % size
            assert slot not in self.shared_slots(request_id), "landed in a neighbour's page"
            self.world.memory[slot] = (request.tenant, request.prompt_ids[: position + 1])
        self.handovers.land(request_id)

    def shared_slots(self, request_id: str) -> set[tuple[int, int]]:
        """Slots of pages that others hold too, or that the prefix tree has."""
        scheduler, size = self.world.scheduler, self.world.page_size
        others = [
            page_id
            for sequence in scheduler._running.values()
            if sequence.request_id != request_id
            for page_id in sequence.page_ids
        ]
        pages = {*others, *scheduler._cache.tree.page_ids}
        return {(page_id, offset) for page_id in pages for offset in range(size)}

    def expected(self, phase: str) -> list[str]:
        """Live requests that wait to be offered, or to land."""
        return [
            name
            for name in self.world.requests
            if self.handovers.is_expected(name)
            and (self.handovers.held(name) is None) == (phase == "offer")
        ]


@pytest.fixture
def afar(world_type: Any) -> Afar:
    return Afar(world_type())


def test_a_prompt_from_afar_leaves_its_last_token_to_compute(afar: Afar, make_request: Any) -> None:
    world, handovers = afar.world, afar.handovers
    afar.add(make_request("a", PROMPT, max_tokens=3))
    assert not world.scheduler.has_work and handovers.is_expected("a")
    assert world.begin_step().chunks == () and handovers.take_admitted() == []
    handovers.offer("a")
    assert world.scheduler.has_work and world.begin_step().chunks == ()
    assert [each.request_id for each in handovers.take_admitted()] == ["a"]
    assert handovers.take_admitted() == [] and not world.scheduler.has_work
    held = handovers.held("a")
    assert held is not None and (len(held.page_ids), held.num_computed) == (3, 0)
    afar.land("a")
    assert world.scheduler.has_work and handovers.held("a") is None
    (chunk,) = world.begin_step().chunks
    assert (chunk.start, chunk.token_ids, chunk.samples) == (10, (11,), True)
    world.end_step()
    world.run_until_idle()
    world.check_end()


def test_what_waits_for_another_rank_holds_up_nobody(afar: Afar, make_request: Any) -> None:
    afar.add(make_request("a", PROMPT, max_tokens=3))
    afar.world.add(make_request("b", (5, 6), max_tokens=3))
    afar.world.run_until_idle()
    assert set(afar.world.reasons) == {"b"}
    afar.handovers.offer("a")
    afar.world.step()
    afar.world.add(make_request("c", (5, 6), max_tokens=3))
    afar.world.run_until_idle()
    assert set(afar.world.reasons) == {"b", "c"}


def test_a_cached_prefix_need_not_come(afar: Afar, make_request: Any) -> None:
    afar.world.add(make_request("a", PROMPT, max_tokens=1))
    afar.world.run_until_idle()
    afar.add(make_request("b", (*PROMPT, 1), max_tokens=1))
    afar.handovers.offer("b")
    afar.world.step()
    held = afar.handovers.held("b")
    assert held is not None and held.num_computed == 8
    afar.land("b")
    afar.world.run_until_idle()
    assert afar.world.first_events["b"].num_cached_tokens == 8
    afar.world.check_end()


def test_equal_prompts_let_one_arrive_first(afar: Afar, make_request: Any) -> None:
    for name in "ab":
        afar.add(make_request(name, PROMPT, max_tokens=2))
        afar.handovers.offer(name)
    afar.world.step()
    assert afar.expected("land") == ["a"] and not afar.world.scheduler.has_work
    afar.land("a")
    afar.world.step()
    held = afar.handovers.held("b")
    assert held is not None and held.num_computed == 8
    afar.land("b")
    afar.world.run_until_idle()
    afar.world.check_end()


@pytest.mark.parametrize("when", ["waiting", "offered", "arriving"])
def test_a_failed_handover_is_computed_here(when: str, afar: Afar, make_request: Any) -> None:
    afar.add(make_request("a", PROMPT, max_tokens=2))
    if when != "waiting":
        afar.handovers.offer("a")
    if when == "arriving":
        afar.world.step()
    afar.handovers.compute_here("a")
    assert afar.world.scheduler.has_work and not afar.handovers.is_expected("a")
    (chunk,) = afar.world.begin_step().chunks
    assert (chunk.start, chunk.token_ids) == (0, PROMPT)
    afar.world.end_step()
    afar.world.run_until_idle()
    afar.world.check_end()


def test_one_that_is_preempted_while_it_arrives_is_computed_here(
    world_type: Any, make_request: Any
) -> None:
    afar = Afar(world_type(num_pages=5, prefix_caching=False))
    afar.world.add(make_request("old", (1, 2, 3), max_tokens=14))
    afar.world.step()
    afar.add(make_request("new", PROMPT, max_tokens=2))
    afar.handovers.offer("new")
    afar.world.step()
    assert afar.expected("land") == ["new"]
    afar.world.run_until_idle()
    assert afar.world.scheduler.num_preemptions == 1 and not afar.handovers.is_expected("new")
    afar.world.check_end()


def test_an_aborted_one_gives_its_pages_back_before_they_land(
    afar: Afar, make_request: Any
) -> None:
    afar.add(make_request("a", PROMPT, max_tokens=2))
    afar.handovers.offer("a")
    afar.world.step()
    afar.world.abort("a")
    assert afar.handovers.held("a") is None and not afar.handovers.is_expected("a")
    afar.world.check_end()


@pytest.mark.parametrize("seed", range(40))
def test_random_lives_from_afar(seed: int, world_type: Any, make_request: Any) -> None:
    random = Random(seed)
    afar = Afar(
        world_type(
            num_pages=random.randint(9, 24),
            max_tokens_per_step=random.choice([3, 8, 32]),
            max_sequences=random.choice([2, 6]),
            prefix_caching=random.random() < 0.7,
        )
    )
    for number in range(40):
        head = random.choice([(), PROMPT[:4], PROMPT[:9]])
        tail = tuple(random.randint(0, 5) for _ in range(random.randint(1, 9)))
        request = make_request(f"r{number}", head + tail, max_tokens=random.randint(1, 16))
        (afar.add if len(request.prompt_ids) > 1 and random.random() < 0.7 else afar.world.add)(
            request
        )
        for _ in range(random.randint(0, 3)):
            disturb(afar, random)
    for _ in range(3000):
        if not afar.world.num_live:
            break
        disturb(afar, random)
    afar.world.check_end()


def disturb(afar: Afar, random: Random) -> None:
    world, to_offer, to_land = afar.world, afar.expected("offer"), afar.expected("land")
    act = random.random()
    if to_offer and act < 0.4:
        afar.handovers.offer(random.choice(to_offer))
    elif to_land and act < 0.7:
        afar.land(random.choice(to_land))
    elif to_offer + to_land and act < 0.75:
        afar.handovers.compute_here(random.choice(to_offer + to_land))
    elif world.num_live and act < 0.77:
        world.abort(random.choice([name for name in world.requests if world.is_live(name)]))
    world.step()
    afar.handovers.take_admitted()
    world.check_pages()


def computing(make_request: Any, name: str, prompt_ids: tuple[int, ...] = PROMPT) -> Request:
    request: Request = replace(make_request(name, prompt_ids, max_tokens=1), decode_rank=0)
    return request


def run(scheduler: Scheduler) -> list[Any]:
    """All chunks until nothing is left to do."""
    chunks = []
    for _ in range(100):
        if not scheduler.has_work:
            return chunks
        batch = scheduler.schedule()
        chunks += batch.chunks
        tokens = tuple(SampledToken(each.request_id, 1) for each in batch.chunks if each.samples)
        assert scheduler.update(StepOutput(tokens)) == []
    raise AssertionError("work is left")


def test_a_prompt_for_another_rank_samples_nothing_and_keeps_its_pages(
    world_type: Any, make_request: Any
) -> None:
    scheduler = world_type(max_tokens_per_step=5).scheduler
    scheduler.add(computing(make_request, "a"))
    chunks = run(scheduler)
    assert [(each.start, len(each.token_ids), each.samples) for each in chunks] == [
        (0, 5, False),
        (5, 5, False),
        (10, 1, False),
    ]
    assert [each.request_id for each in scheduler.handovers.take_admitted()] == ["a"]
    held = scheduler.handovers.held("a")
    assert held is not None and (held.page_ids, held.num_computed) == (chunks[0].page_ids, 11)
    assert scheduler.num_pages_used == 3 and scheduler.num_running == 1
    assert scheduler.abort("a") is None and scheduler.handovers.held("a") is None
    assert (scheduler.num_pages_used, scheduler.num_pages_cached) == (0, 2)


def test_pages_that_are_being_sent_hold_up_the_next_without_work(
    world_type: Any, make_request: Any
) -> None:
    scheduler = world_type(num_pages=4).scheduler
    scheduler.add(computing(make_request, "a"))
    scheduler.add(computing(make_request, "b", tuple(range(20, 31))))
    assert {each.request_id for each in run(scheduler)} == {"a"}
    assert not scheduler.has_work and scheduler.num_waiting == 1
    scheduler.abort("a")
    assert scheduler.has_work
    assert {each.request_id for each in run(scheduler)} == {"b"}


def test_a_prompt_for_another_rank_uses_the_prefix_cache(
    world_type: Any, make_request: Any
) -> None:
    scheduler = world_type().scheduler
    for name in "ab":
        scheduler.add(computing(make_request, name))
    starts = {each.request_id: each.start for each in run(scheduler)}
    assert starts == {"a": 0, "b": 8}
