"""Ranks whose experts move while they serve: `mpirun -n 2 python move_rank.py FOLDER`.

FOLDER has config.yaml, the plans PLAN.json that the cases name, and cases.json, of which each has
`changes` (a rank gets one when it has sent so many tokens) and perhaps a `fault`. Rank 0 writes
answer.json: for each case and rank the tokens of its requests, and what it counted.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from moe_comm.routing import RoutingTable
from moe_placement.plan import LayerPlan, Plan
from moe_placement.plan_file import load

from moe_serve.bring_up import Meeting, meet
from moe_serve.build import Rank, build_rank
from moe_serve.config.load import load_config
from moe_serve.control.meeting.world import launched_world
from moe_serve.messages import Command, PlanChange, RankStats, Report
from moe_serve.step.changes import no_changes
from moe_serve.step.tenants import Tenants
from moe_serve.step.worker import Worker
from moe_serve.types import Request, SamplingParams

# Rank 0 has more to do, so that it is the last to end.
NUM_TOKENS = (40, 36)
LONG_PROMPT = 70


class Line:
    """A front end that hands out one request, then plans, and wakes whoever asks for it.

    Args:
        folder: where ranks see that another one was asked to be woken.
        idle: plans come after the requests, and one more request after the last plan.
    """

    def __init__(
        self, rank: int, folder: Path, changes: Sequence[tuple[int, PlanChange]], idle: bool
    ) -> None:
        self._rank, self._folder, self._changes, self._idle = rank, folder, list(changes), idle
        self._wake = 1
        self._waiting = [Command(wake=1, submit=(request("first", rank),))]
        self._ended: set[str] = set()
        self.tokens: dict[str, list[int]] = defaultdict(list)
        self.stats = RankStats(plan_rank=rank)
        self.most_to_load = 0

    def receive(self) -> Sequence[Command]:
        commands, self._waiting = self._waiting, []
        if (self._folder / f"wake-{self._wake + 1}").exists():
            self._wake += 1
            commands.append(Command(wake=self._wake))
        return commands

    def wait(self, seconds: float, descriptors: Sequence[int] = ()) -> None:
        time.sleep(min(seconds, 0.002))

    def send(self, report: Report) -> bool:
        for event in report.events:
            if event.token_id is not None:
                self.tokens[event.request_id].append(event.token_id)
            if event.finish_reason is not None:
                self._ended.add(event.request_id)
        self.stats = report.stats or self.stats
        self.most_to_load = max(self.most_to_load, self.stats.num_experts_to_load)
        if report.asleep_since == self._wake:
            (self._folder / f"wake-{self._wake + 1}").touch()
        if not report.is_last:
            self._go_on()
        return True

    def _go_on(self) -> None:
        count = sum(map(len, self.tokens.values()))
        while self._changes and count >= self._changes[0][0]:
            self._say(plan_change=self._changes.pop(0)[1])
        has_moved = self.stats.plan_epoch > 0
        if self._idle and has_moved and "second" not in self.tokens and "first" in self._ended:
            self.tokens["second"] = []
            self._say(submit=(request("second", self._rank),))
        wanted = {"first", "second"} if self._idle else {"first"}
        if self._rank == 0 and wanted <= self._ended:
            self._say(stop=True)

    def _say(self, **fields: Any) -> None:
        # A number that nobody else was told keeps the other ranks asleep; all look at the files.
        self._wake += 1
        (self._folder / f"wake-{self._wake}").touch()
        self._waiting.append(Command(wake=self._wake, **fields))


def request(name: str, rank: int) -> Request:
    ids = tuple((7 * place + 13 * rank) % 200 + 20 for place in range(LONG_PROMPT))
    most = NUM_TOKENS[rank]
    sampling = SamplingParams(temperature=0.0, max_tokens=most, ignore_eos=True)
    return Request(request_id=name, prompt_ids=ids, sampling=sampling)


def change(old: Plan, new: Plan) -> PlanChange:
    layers = {layer: placed for layer, placed in new.layers.items() if placed != old.layers[layer]}
    return PlanChange(
        base_epoch=old.epoch,
        epoch=new.epoch,
        slots={layer: placed.slots for layer, placed in layers.items()},
        weights={layer: placed.weights for layer, placed in layers.items()},
    )


def run(case: Mapping[str, Any], folder: Path, meeting: Meeting) -> dict[str, Any]:
    rank = build_rank(load_config(folder / "config.yaml"), meeting)
    number = meeting.launch.rank
    base = rank.deployment.plan
    changes = [
        (after, change(base, replace(load(folder / f"{plan}.json"), epoch=epoch)))
        for after, plan, epoch in case["changes"]
    ]
    place = folder / case["name"]
    place.mkdir(exist_ok=True)
    if number == 1 and "fault" in case:
        FAULTS[case["fault"]](rank, folder)
    line = Line(number, place, changes, idle=case.get("idle", False))
    loaded = rank.loaded
    tenants = Tenants.of_one(number, rank.engine)
    nobody = no_changes(number, tenants)
    counter, mover = loaded.load, loaded.mover
    Worker(number, tenants, nobody, rank.exchange, line, lambda: None, counter, mover).run()
    return {
        "tokens": line.tokens,
        "epoch": line.stats.plan_epoch,
        "given_up": line.stats.given_up_epoch,
        "moved_bytes": line.stats.moved_bytes,
        "most_to_load": line.most_to_load,
        "num_steps": line.stats.num_steps,
    }


def send_to_wrong_slots(rank: Rank, folder: Path) -> None:
    """Tokens of this rank go to each other's experts, as soon as the plan changes."""
    mover = rank.loaded.mover
    right = mover._tables_of

    def wrong(plan: Plan) -> Mapping[int, RoutingTable]:
        swapped = {
            layer: LayerPlan(turned(each.slots), each.weights)
            for layer, each in plan.layers.items()
        }
        return right(replace(plan, layers=swapped))

    mover._tables_of = wrong


def turned(slots: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    return (slots[0][1:] + slots[0][:1], *slots[1:])


def lose_checkpoint(rank: Rank, folder: Path) -> None:
    checkpoint = rank.loaded.mover._reader._checkpoint
    checkpoint.close()
    checkpoint._tensors = {
        name: replace(stored, file=folder / "gone.safetensors")
        for name, stored in checkpoint._tensors.items()
    }


FAULTS = {"wrong slots": send_to_wrong_slots, "no checkpoint": lose_checkpoint}


def main() -> None:
    folder = Path(sys.argv[1])
    meeting = meet(load_config(folder / "config.yaml"), launched_world())
    answers = []
    for case in json.loads((folder / "cases.json").read_text()):
        mine = json.dumps(run(case, folder, meeting)).encode()
        ranks = [json.loads(each) for each in meeting.exchange.allgather_bytes(mine)]
        answers.append({**case, "ranks": ranks})
    if meeting.launch.rank == 0:
        (folder / "answer.json").write_text(json.dumps(answers))
    meeting.close()


if __name__ == "__main__":
    main()
