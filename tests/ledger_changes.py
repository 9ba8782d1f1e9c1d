"""Tenants of one ledger whose promises change while they run."""

from random import Random

from hypothesis.stateful import precondition, rule
from ledger_machine import RANDOM, WEIGHTS, WORKING_SPACE, Machine
from ledger_tenant import Tenant

from moe_serve.errors import LedgerError


class ChangingMachine(Machine):
    """Books, resizes, and changes the total as well."""

    @rule(random=RANDOM)
    @precondition(lambda self: self.tenants)
    def book(self, random: Random) -> None:
        tenant, num_bytes = random.choice(self.tenants), random.randint(0, 20)
        self.put_down(tenant, WEIGHTS, num_bytes, in_turn=False)

    @rule(random=RANDOM)
    @precondition(lambda self: self.tenants)
    def book_in_turn(self, random: Random) -> None:
        tenant, num_bytes = random.choice(self.tenants), random.randint(0, 20)
        self.put_down(tenant, WORKING_SPACE, num_bytes, in_turn=True)

    def put_down(self, tenant: Tenant, part: str, num_bytes: int, *, in_turn: bool) -> None:
        before, left = (tenant.booked, tenant.in_turn, self.booked), self.left
        if in_turn:
            tenant.in_turn = num_bytes
        else:
            tenant.booked = num_bytes
        is_refused = self.booked - before[-1] > left
        try:
            self.ledger.book(tenant.number, part, num_bytes, in_turn=in_turn)
        except LedgerError:
            assert is_refused, "bytes are refused that are left"
            tenant.booked, tenant.in_turn, _ = before
            return
        assert not is_refused, "bytes are given that are promised"
        self.is_settled = False

    @rule(random=RANDOM)
    @precondition(lambda self: self.tenants and self.active is None)
    def resize(self, random: Random) -> None:
        tenant = random.choice(self.tenants)
        budget, is_bytes = tenant.budget, random.random() < 0.5
        guaranteed = max(0, budget.guaranteed + random.randint(-6, 6))
        limit = guaranteed + random.choice([0, 0, 3, 9])
        is_hard = budget.limit == budget.guaranteed
        if is_bytes:
            is_bound = is_hard or budget.is_fixed
            limit = guaranteed if is_bound else max(guaranteed, budget.capacity)
        is_refused = self.is_harmful(tenant, guaranteed, limit)
        before = (budget.guaranteed, budget.limit, budget.num_held)
        try:
            if is_bytes:
                size = tenant.booked + tenant.in_turn + guaranteed * budget.page_bytes
                size += random.randrange(budget.page_bytes)
                self.ledger.resize(tenant.number, size, is_hard=is_hard)
            else:
                self.ledger.resize_pages(tenant.number, guaranteed, limit)
        except LedgerError:
            assert is_refused, "a resize is refused that could be"
            assert (budget.guaranteed, budget.limit, budget.num_held) == before
            return
        assert not is_refused, "a resize is let through that harms"
        assert (budget.guaranteed, budget.limit) == (guaranteed, limit)

    def is_harmful(self, tenant: Tenant, guaranteed: int, limit: int) -> bool:
        """Whether a resize must be refused."""
        budget = tenant.budget
        return (
            guaranteed < max(1, tenant.num_needed)
            or limit > budget.capacity
            or limit < tenant.world.scheduler.num_pages_used
            or (guaranteed - budget.guaranteed) * budget.page_bytes > self.left
            or (budget.is_fixed and (guaranteed, limit) != (budget.guaranteed, budget.limit))
        )
