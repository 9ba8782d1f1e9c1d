"""Random lives of several tenants on one ledger: led by hypothesis, and long ones from seeds."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest


@pytest.mark.parametrize("num_lives", [60, pytest.param(1500, marks=pytest.mark.slow)])
def test_random_tenants(
    num_lives: int, machine_type: Callable[..., Any], run_machine: Callable[..., None]
) -> None:
    run_machine(machine_type(), max_examples=num_lives, stateful_step_count=40)


def test_long_lives_lend_and_take_back(machine_type: Callable[..., Any]) -> None:
    num_preempted = 0
    for seed in range(10):
        random, machine = Random(seed), machine_type()()
        machine.start(random)
        for _ in range(60):
            machine.burst(random)
            machine.burst(random)
            machine.run(random, num_steps=3)
            if random.random() < 0.3:
                random.choice([machine.book, machine.resize])(random)
                machine.close(random)
                while len(machine.tenants) < 3:
                    machine.open(random)
        machine.finish()
        assert machine.most_lent > 0
        num_preempted += machine.num_preempted
    assert num_preempted > 5
