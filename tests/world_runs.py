"""Servers whose pools are an mpirun each, and streams that one of them is lost under."""

import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import httpx
from fault_runs import Run, Stream, serve_command
from live_server import mpirun, server_config
from moe_placement.plan import LayerPlan, Plan, PoolPlan, Role
from moe_placement.plan_file import save

NUM_EXPERTS = 12
MOE_LAYERS = (0, 1, 2)
NUM_TOKENS = 240
PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16], [17, 18, 19]]

Pool = tuple[str, int, str, Sequence[Sequence[int]]]


class Worlds:
    """Starts servers whose pools are an mpirun each."""

    def __init__(
        self,
        path: Path,
        folder: Path,
        start: Callable[[Sequence[str]], Run],
        write: Callable[[Mapping[str, Any]], Path],
    ) -> None:
        self._path, self._folder, self._start, self._write = path, folder, start, write
        self._commands: dict[str, list[str]] = {}
        self._runs: list[Run] = []

    def end(self) -> None:
        """Nobody computes on behind the next test's back."""
        for run in self._runs:
            run.kill()

    def start(self, pools: Sequence[Pool], *options: Any, **named: Any) -> tuple[str, list[Run]]:
        """URL, once it is ready, and the pools' runs; arguments as `launch` has them."""
        runs = self.launch(pools, *options, **named)
        try:
            return runs[0].wait_until_ready(), runs
        except AssertionError as error:
            for run in runs:
                error.add_note(f"pool's mpirun, exit code {run.process.poll()}:\n{run.errors}")
            raise

    def launch(
        self,
        pools: Sequence[Pool],
        on: Sequence[Callable[..., list[str]]] = (),
        command: Callable[..., list[str]] = serve_command,
        collective: str = "mpi",
        shards: int = 1,
        placement: Mapping[str, Any] | None = None,
        deadline: str = "5s",
        **sections: Any,
    ) -> list[Run]:
        """The pools' runs.

        Args:
            pools: name, ranks, role, and for each rank its experts in all layers.
            on: where each pool's command runs; here if not given.
            command: what a rank runs.
            collective: of all pools.
            shards: ranks that share one copy of attention, where a pool has any.
            placement: besides the plan.
            deadline: of silence; the default is for a crowded machine.
        """
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        config = server_config(self._path, 1) | {
            "pools": [
                {
                    "name": name,
                    "device": "cpu",
                    "ranks": ranks,
                    "threads": 1,
                    "role": role,
                    "collective": collective,
                    "attention": {"tensor_parallel": 1 if role == "experts" else shards},
                }
                for name, ranks, role, _ in pools
            ],
            "placement": {"plan": str(self._write_plan(pools, shards)), **(placement or {})},
            "world": {"address": address, "deadline": deadline},
        }
        file = self._write(config | sections)
        places = on or [lambda *words: list(words)] * len(pools)
        self._commands = {
            name: place(*mpirun(ranks, *command(file, "--pools", name)))
            for (name, ranks, _, _), place in zip(pools, places, strict=True)
        }
        return [self.start_again(name) for name, *_ in pools]

    def start_again(self, name: str, *words: str) -> Run:
        """The mpirun of a pool once more, with more words for its ranks."""
        self._runs.append(self._start([*self._commands[name], *words]))
        return self._runs[-1]

    def _write_plan(self, pools: Sequence[Pool], shards: int) -> Path:
        plans, first = [], 0
        for name, ranks, role, _ in pools:
            numbers = tuple(range(first, first + ranks))
            size, group = 1 if role == "experts" else shards, int(role == "prefill")
            pool = PoolPlan(name, "cpu", numbers, cast(Role, role), "float32", size, group)
            plans.append(pool)
            first += ranks
        groups = [role == "prefill" for _, _, role, placed in pools for _ in placed]
        slots = tuple(tuple(each) for _, _, _, placed in pools for each in placed)
        held = Counter(
            (group, expert) for group, each in zip(groups, slots, strict=True) for expert in each
        )
        weights = tuple(
            tuple(1.0 / held[group, expert] for expert in each)
            for group, each in zip(groups, slots, strict=True)
        )
        layers = dict.fromkeys(MOE_LAYERS, LayerPlan(slots, weights))
        file = self._folder / f"plan-{time.monotonic_ns()}.json"
        save(Plan("tiny", NUM_EXPERTS, tuple(plans), layers), file)
        return file


def streams(url: str, **fields: Any) -> list[Stream]:
    return [Stream(url, NUM_TOKENS, prompt, logprobs=0, **fields) for prompt in PROMPTS]


def tokens(url: str, **fields: Any) -> list[list[str]]:
    """What an undisturbed server answers."""
    answers = streams(url, **fields)
    for each in answers:
        each.wait_for_end(60.0)
    return [each.tokens for each in answers]


def ended(interrupted: Sequence[Stream]) -> list[list[str]]:
    """All that came in streams that were disturbed; each ended well, and soon."""
    for each in interrupted:
        each.wait_for_end(60.0)
        assert each.broken is None
        assert each.error is None, each.error
        assert each.num_tokens == NUM_TOKENS
    return [each.tokens for each in interrupted]


def begin(url: str, num_tokens: int = 20, **fields: Any) -> list[Stream]:
    """Streams in their middle."""
    begun = streams(url, **fields)
    deadline = time.monotonic() + 30.0
    while min(len(each.tokens) for each in begun) < num_tokens:
        assert time.monotonic() < deadline, "the streams do not come along"
        time.sleep(0.005)
    assert max(len(each.tokens) for each in begun) < NUM_TOKENS
    return begun


def metric(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def kill(run: Run) -> None:
    """At once, as a host's end does."""
    for process in run.family():
        process.kill()


def range_of(first: int, end: int) -> list[int]:
    return list(range(first, end))


def wait_for_metric(url: str, name: str, is_it: Callable[[float], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_it(found := metric(url, name)):
        assert time.monotonic() < deadline, f"{name} is {found} after {seconds} s"
        time.sleep(0.05)


def end_well(front: Run, *others: Run) -> None:
    """By a drain that all of them follow."""
    front.process.send_signal(signal.SIGUSR1)
    for run in (front, *others):
        assert run.wait_for_end(30.0) == 0, run.errors
