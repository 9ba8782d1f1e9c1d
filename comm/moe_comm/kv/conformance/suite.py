"""All checks for one engine, given the addresses of its ranks."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from moe_comm.kv.conformance.refusals import (
    nonsense,
    probe,
    refusals,
    run_nonsense,
    run_refusal,
    run_wrong_secret,
)
from moe_comm.kv.conformance.tester import ConformanceError
from moe_comm.kv.conformance.trials import Target, run_trial, trials


@dataclass(frozen=True, slots=True)
class Check:
    """Attributes:
    run: raises ConformanceError or OSError if the engine fails it.
    """

    name: str
    run: Callable[[], None]

    def fault(self) -> str | None:
        """Why the engine fails it, or None."""
        try:
            self.run()
        except (ConformanceError, OSError) as error:
            return str(error) or type(error).__name__
        return None


def suite(addresses: Sequence[str], secret: bytes) -> list[Check]:
    """To be run in order, one at a time.

    Raises:
        FrameError, OSError: a rank cannot be greeted.
    """
    targets = [Target(each, asyncio.run(probe(each, secret))) for each in addresses]
    round_trips = _round_trips(targets, secret)
    survived = Check(f"after all that, {round_trips[0].name}", round_trips[0].run)
    return [*round_trips, *_refused(targets[0], secret), survived]


def _round_trips(targets: Sequence[Target], secret: bytes) -> list[Check]:
    return [
        Check(trial.name, partial(run_trial, targets, trial, secret)) for trial in trials(targets)
    ]


def _refused(target: Target, secret: bytes) -> Iterator[Check]:
    address, hello = target.address, msgspec.structs.replace(target.hello, name="conformance:0")
    for refusal in refusals(target.hello):
        work = partial(run_refusal, address, secret, refusal)
        yield _asynchronous(f"refuses {refusal.name}", work)
    for each in nonsense():
        work = partial(run_nonsense, address, secret, hello, each)
        yield _asynchronous(f"ends at {each.name}", work)
    work = partial(run_wrong_secret, address, secret, hello)
    yield _asynchronous("refuses another secret", work)


def _asynchronous(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> Check:
    return Check(name, lambda: asyncio.run(work()))
