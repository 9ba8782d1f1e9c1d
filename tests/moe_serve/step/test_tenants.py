"""The served models of one rank together: what they tell of themselves."""

from dataclasses import dataclass
from typing import cast

from moe_serve.messages import RankStats
from moe_serve.step.rank_engine import RankEngine
from moe_serve.step.tenants import Tenant, Tenants


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


def test_who_has_the_ranks_to_itself_has_no_slice() -> None:
    engine = cast(RankEngine, Counting(5))
    assert Tenants.of_one(0, engine).stats().slices == ()
