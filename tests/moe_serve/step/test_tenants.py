"""The served models of one rank together: what they tell of themselves."""

from dataclasses import dataclass, replace
from typing import cast

import pytest
from moe_comm.header import StepHeader

from moe_serve.errors import PlacementError
from moe_serve.messages import RankStats
from moe_serve.step.rank_engine import RankEngine
from moe_serve.step.tenant import Tenant
from moe_serve.step.tenants import Tenants


@dataclass
class Counting:
    """An engine that has done something, and holds pages."""

    tokens: int
    has_work = False
    descriptors = ()

    def abort_all(self) -> None: ...

    def stats(self) -> RankStats:
        return RankStats(plan_rank=0, num_generated_tokens=self.tokens, num_pages=8)


def tenant(number: int, tokens: int) -> Tenant:
    return Tenant(number=number, name=f"m{number}", engine=cast(RankEngine, Counting(tokens)))


def test_counters_stay_when_a_model_goes() -> None:
    tenants = Tenants(0, 1.0, [tenant(0, 5), tenant(1, 7)])
    assert tenants.stats().num_generated_tokens == 12
    tenants.close(0)
    stats = tenants.stats()
    assert (stats.num_generated_tokens, stats.num_pages) == (12, 8)
    assert [each.model for each in stats.slices] == ["m1"], "the last one is told of as well"


def part_of_time(tenants: Tenants, number: int, first: int) -> float:
    """Of a thousand steps of 1 ms, in which one tenant has work all the time."""
    turns = 0
    for step in range(first, first + 1000):
        header = StepHeader(
            work=True, wake=0, plan_epoch=0, clock=step * 1_000_000, turns=frozenset({number})
        )
        turns += tenants.next(header) is not None
    return turns / 1000


def test_who_takes_turns_on_half_the_processors_has_its_share_of_the_device() -> None:
    """Half of the device is all the time of half its processors."""
    own = Tenant(number=0, rank=0, share=0.5, takes_turns=False)
    hard = replace(tenant(1, 0), share=0.5, is_hard=True)
    tenants = Tenants(0, 0.004, [own, hard])
    assert part_of_time(tenants, 1, 0) == pytest.approx(1.0, abs=0.01)
    tenants.change_share(1, 0.25, is_hard=True)
    assert part_of_time(tenants, 1, 1000) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(PlacementError, match="isolate: sm"):
        tenants.change_share(0, 0.25, is_hard=True)
    # Its processors stay its own: what they were is not there for others.
    tenants.close(0)
    assert part_of_time(tenants, 1, 2000) == pytest.approx(0.5, abs=0.01)
    tenants.open(replace(tenant(2, 0), share=0.75))
    assert part_of_time(tenants, 1, 3000) == pytest.approx(0.25, abs=0.01)


def test_who_has_the_ranks_to_itself_has_no_slice() -> None:
    engine = cast(RankEngine, Counting(5))
    assert Tenants.of_one(0, engine).stats().slices == ()
