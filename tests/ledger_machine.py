"""A state machine that leads random lives of several tenants on one ledger."""

import sys
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from ledger_tenant import Tenant, pages_of

from moe_serve.errors import LedgerError, OverloadedError, RequestError
from moe_serve.schedule.ledger import MemoryLedger
from moe_serve.schedule.scheduler import Scheduler
from moe_serve.schedule.sequence import Phase
from moe_serve.types import Request

RANDOM = st.randoms(use_true_random=True)
WEIGHTS, WORKING_SPACE = "weights", "working_space"


class Machine(RuleBasedStateMachine):
    """Leads the lives of tenants and their requests; `make_machine` says of which kind."""

    world_type: Any
    make_request: Callable[..., Request]
    ledger_type: type[MemoryLedger]
    scheduler_type: type[Scheduler]

    @initialize(random=RANDOM)
    def start(self, random: Random) -> None:
        self.ledger = self.ledger_type(random.randint(60, 80))
        self.tenants: list[Tenant] = []
        self.active: Tenant | None = None
        self.is_settled = True
        self.num_opened = self.num_added = self.num_preempted = 0
        self.most_lent = 0
        while len(self.tenants) < 3:
            self.open(random)

    @property
    def booked(self) -> int:
        in_turn = max((tenant.in_turn for tenant in self.tenants), default=0)
        return in_turn + sum(tenant.booked for tenant in self.tenants)

    @property
    def left(self) -> int:
        pages = sum(each.budget.guaranteed * each.budget.page_bytes for each in self.tenants)
        return self.ledger.total_bytes - self.booked - pages

    @rule(random=RANDOM)
    def open(self, random: Random) -> None:
        page_bytes, guaranteed = random.randint(1, 3), random.randint(0, 9)
        kind = random.choice(["share"] * 4 + ["hard", "fixed"])
        limit = guaranteed + (random.choice([1, 9, 60, 60]) if kind == "share" else 0)
        pages = {
            "page_bytes": page_bytes,
            "guaranteed": guaranteed,
            "limit": limit,
            "capacity": limit + random.randint(0, 4) * (kind != "fixed"),
            "is_fixed": kind == "fixed",
        }
        number, room = self.num_opened, self.left - guaranteed * page_bytes
        self.num_opened += 1
        if guaranteed < 1 or room < 0 or len(self.tenants) > 4:
            if guaranteed < 1 or room < 0:
                with pytest.raises(LedgerError):
                    self.make_tenant(number, pages, random)
            return
        self.tenants.append(self.make_tenant(number, pages, random))
        self.is_settled = False

    def make_tenant(self, number: int, pages: dict[str, Any], random: Random) -> Tenant:
        return Tenant(
            partial(self.world_type, self.scheduler_type),
            self.ledger,
            number,
            pages,
            page_size=random.randint(1, 3),
            max_tokens_per_step=random.choice([3, 21, 40, 40]),
            max_sequences=random.choice([2, 8, 8, 8]),
            max_live=24,
            max_context=48,
            # With it, all tenants soon hold what they are guaranteed, and want no page back.
            prefix_caching=random.random() < 0.4,
        )

    @rule(random=RANDOM)
    @precondition(lambda self: self.tenants and self.active is None and self.num_opened > 3)
    def close(self, random: Random) -> None:
        tenant = self.tenants.pop(random.randrange(len(self.tenants)))
        for name in [name for name in tenant.world.requests if tenant.world.is_live(name)]:
            tenant.world.abort(name)
        tenant.world.check_end()
        self.ledger.close(tenant.number)
        assert not self.ledger.entries(tenant.number), "a closed tenant holds something"

    @rule(random=RANDOM)
    @precondition(lambda self: self.tenants)
    def add(self, random: Random) -> None:
        self.add_to(random.choice(self.tenants), random, random.randint(1, 5))

    def add_to(self, tenant: Tenant, random: Random, num_requests: int) -> None:
        for _ in range(num_requests):
            self.num_added += 1
            self.add_one(tenant, self.draw_request(tenant, random))

    @rule(random=RANDOM)
    @precondition(lambda self: self.tenants and self.active is None)
    def burst(self, random: Random) -> None:
        """One tenant has much to do while the others rest."""
        tenant = random.choice(self.tenants)
        self.add_to(tenant, random, 8)
        for _ in range(random.randint(1, 12)):
            self.begin_step_of(tenant)
            self.end_step(is_computed=True)
            self.tenants_are_right()

    def draw_request(self, tenant: Tenant, random: Random) -> Request:
        head = random.choice([(), (), (0, 1, 0, 0), (1,) * 7])
        prompt_ids = (*head, *(random.randint(0, 5) for _ in range(random.randint(1, 3))))
        # As long as its guaranteed pages hold, and now and then a token more.
        longest = tenant.budget.guaranteed * tenant.world.page_size - len(prompt_ids) + 1
        extra = random.random() < 0.1
        max_tokens = random.choice([random.randint(1, 16), max(1, longest + extra)])
        return self.make_request(
            f"r{self.num_added}",
            prompt_ids,
            max_tokens=max_tokens,
            stop_token_ids=random.choice([(), (), (), (3,)]),
        )

    def add_one(self, tenant: Tenant, request: Request) -> None:
        world = tenant.world
        num_tokens = len(request.prompt_ids) + request.sampling.max_tokens
        fits = num_tokens <= 48 and pages_of(request, world) <= tenant.budget.guaranteed
        if fits and world.num_live < 24:
            world.add(request)
            return
        with pytest.raises(OverloadedError if fits else RequestError):
            world.add(request)

    @rule(random=RANDOM)
    @precondition(lambda self: any(tenant.world.num_live for tenant in self.tenants))
    def abort(self, random: Random) -> None:
        tenant = random.choice([tenant for tenant in self.tenants if tenant.world.num_live])
        world = tenant.world
        world.abort(random.choice([name for name in world.requests if world.is_live(name)]))

    @rule(random=RANDOM, max_tokens=st.sampled_from([None, None, 2]))
    @precondition(lambda self: self.tenants and self.active is None)
    def begin_step(self, random: Random, max_tokens: int | None) -> None:
        self.begin_step_of(random.choice(self.tenants), max_tokens)

    def begin_step_of(self, tenant: Tenant, max_tokens: int | None = None) -> None:
        others = [other for other in self.tenants if other is not tenant]
        before = [(other.oldest, other.world.scheduler.num_preemptions) for other in others]
        tenant.world.begin_step(max_tokens)
        for other, (oldest, num_preemptions) in zip(others, before, strict=True):
            assert oldest is None or oldest.phase is not Phase.WAITING, "the oldest was preempted"
            self.num_preempted += other.world.scheduler.num_preemptions - num_preemptions
        self.active = tenant
        self.is_settled |= not tenant.budget.is_fixed

    @rule(is_computed=st.sampled_from([True, True, True, False]))
    @precondition(lambda self: self.active is not None)
    def end_step(self, is_computed: bool) -> None:
        assert self.active is not None
        if is_computed:
            self.active.world.end_step()
        else:
            self.active.world.cancel_step()
        self.active = None

    @rule(random=RANDOM, num_steps=st.integers(1, 8))
    @precondition(lambda self: self.tenants and self.active is None)
    def run(self, random: Random, num_steps: int) -> None:
        for _ in range(num_steps):
            self.begin_step_of(random.choice(self.tenants))
            self.end_step(is_computed=True)
            self.tenants_are_right()

    @invariant()
    def tenants_are_right(self) -> None:
        held = self.booked
        for tenant in self.tenants:
            tenant.check()
            held += tenant.budget.num_held * tenant.budget.page_bytes
            lent = tenant.budget.num_held - tenant.budget.guaranteed
            self.most_lent = max(self.most_lent, lent)
        assert self.left >= 0, "more is promised than there is"
        promised = self.ledger.total_bytes - self.left
        assert self.ledger.promised_bytes == promised, "promises are miscounted"
        assert self.ledger.free_bytes == self.ledger.total_bytes - held, "bytes are miscounted"
        assert held <= self.ledger.total_bytes or not self.is_settled, "more is held than there is"

    def teardown(self) -> None:
        # After a failure the checks would only hide the first one behind later ones.
        if sys.exception() is not None:
            return
        self.finish()
        event(f"pages lent: {self.most_lent > 0}, preempted for others: {self.num_preempted > 0}")

    def finish(self) -> None:
        """Run all requests to their ends, and close all tenants."""
        if self.active is not None:
            self.end_step(is_computed=True)
        self.run_until_idle()
        for tenant in self.tenants:
            tenant.world.check_end()
            self.ledger.close(tenant.number)
        assert self.ledger.promised_bytes == 0, "a closed tenant holds something"
        assert self.ledger.free_bytes == self.ledger.total_bytes, "a closed tenant holds something"

    def run_until_idle(self, max_steps: int = 3000) -> None:
        for _ in range(max_steps):
            working = [tenant for tenant in self.tenants if tenant.world.scheduler.has_work]
            if not working:
                return
            for tenant in working:
                self.begin_step_of(tenant)
                self.end_step(is_computed=True)
            self.tenants_are_right()
        raise AssertionError(f"work is left after {max_steps} steps of each")
