"""Machines of tenants on one ledger, and runs of them."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from ledger_changes import ChangingMachine

from moe_serve.schedule.ledger import MemoryLedger
from moe_serve.schedule.scheduler import Scheduler
from moe_serve.types import Request


@pytest.fixture
def machine_type(
    world_type: Any, make_request: Callable[..., Request]
) -> Callable[..., type[ChangingMachine]]:
    """machine_type(ledger_type, scheduler_type) -> a machine with tenants of these."""

    def make(
        ledger_type: type[MemoryLedger] = MemoryLedger,
        scheduler_type: type[Scheduler] = Scheduler,
    ) -> type[ChangingMachine]:
        of_these = {
            "world_type": staticmethod(world_type),
            "make_request": staticmethod(make_request),
            "ledger_type": ledger_type,
            "scheduler_type": scheduler_type,
        }
        return type("Machine", (ChangingMachine,), of_these)

    return make


@pytest.fixture
def run_machine() -> Callable[..., None]:
    """Runs a machine over random lives, in which its checks may find something wanting."""

    def run(machine: type[ChangingMachine], **chosen: Any) -> None:
        always = {"deadline": None, "derandomize": True, "database": None}
        options = settings(suppress_health_check=list(HealthCheck), **always, **chosen)
        run_state_machine_as_test(machine, settings=options)

    return run
