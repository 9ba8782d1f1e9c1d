"""Ranks that share attention weights, built by hand: `mpirun -n N python attention_rank.py CASES`.

CASES is a JSON file, a list; rank 0 prints the list of answers as one line of JSON. A case has
`path` (a checkpoint), `num_ranks` (the first ones; the others wait), `tensor_parallel`,
`num_experts_ranks` (of the last of them), `prompts`, and perhaps what `Case` has defaults for. Its
answer has `answers` (of each prompt its `tokens` and, in `logprobs`, the pair of token and
log-probability of the chosen and of the best ones) and `ranks` (what each rank read and holds).
"""

import json
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from attention_faults import FAULTS
from held_bytes import held_bytes, tensors_in
from moe_comm.collective import CollectiveDispatcher
from moe_comm.header import StepHeader, agree
from moe_comm.local import LocalDispatcher
from moe_comm.routing import RoutingTable
from moe_comm.shard import Shard
from moe_comm.transport.exchange import Exchange, WaitLoop
from moe_comm.transport.local import LocalExchange
from moe_comm.transport.mpi import MpiExchange
from moe_devices.pacer import RealTime
from moe_kernels.table import select_ops
from mpi4py import MPI

from moe_serve.models.registry import build_experts_model, build_model, describe
from moe_serve.schedule.scheduler import Scheduler
from moe_serve.step.cache import allocate_cache
from moe_serve.step.engine import Engine
from moe_serve.step.follower import Follower
from moe_serve.step.rank_engine import RankEngine
from moe_serve.step.runner import Runner
from moe_serve.step.sampler import Sampler
from moe_serve.step.timing import TimedDispatcher, Timer
from moe_serve.types import Request, SamplingParams, TokenEvent
from moe_serve.weights.checkpoint import Checkpoint
from moe_serve.weights.loader import WeightLoader

CPU = torch.device("cpu")
SECONDS = 60.0
NUM_PAGES, PAGE_SIZE = 64, 16


@dataclass(frozen=True, kw_only=True)
class Case:
    path: str
    num_ranks: int
    tensor_parallel: int
    prompts: list[list[int]]
    num_experts_ranks: int = 0
    num_tokens: int = 24
    tokens_per_step: int = 13
    dtype: str = "float32"
    deterministic: bool = False
    fault: str = ""

    @property
    def num_attention_ranks(self) -> int:
        return self.num_ranks - self.num_experts_ranks


class Rank:
    """One of a case's ranks, from its first byte read to its answer."""

    def __init__(self, case: Case, group: Exchange, attention: Exchange, has_tokens: bool) -> None:
        self.case = case
        self.group = group
        self.attention = attention
        self.has_tokens = has_tokens
        self.checkpoint = Checkpoint.open(case.path)
        self.shape = describe(self.checkpoint.config)
        self.ops = select_ops("cpu", case.dtype, case.deterministic)
        experts = [list(range(*part)) for part in self._parts()]
        self.model: Any = self._build(experts[group.rank])
        self.timer = Timer(RealTime())
        self.dispatcher = TimedDispatcher(self._dispatcher(experts), self.timer)
        dtype = getattr(torch, case.dtype)
        specs = self.model.cache_specs
        self.caches = allocate_cache(specs, NUM_PAGES, PAGE_SIZE, dtype, CPU)
        if case.fault and group.rank == group.size - 1:
            self.model = FAULTS[case.fault](self.model)

    def run(self) -> dict[str, Any]:
        engine = self._engine()
        for number, prompt in self._mine():
            engine.add(self._request(number, prompt))
        events: list[TokenEvent] = []
        while agree(self.group, StepHeader(work=engine.has_work, wake=0, plan_epoch=0)).work:
            events += engine.step()
        stats = engine.stats()
        return {
            "events": [(e.request_id, e.token_id, e.logprob, e.top_logprobs) for e in events],
            "bytes_read": self.checkpoint.bytes_read,
            "weights": held_bytes(tensors_in(self.model)),
            "cache": held_bytes(tensors_in(self.caches)),
            "num_steps": stats.num_steps,
            "num_rows": stats.num_expert_rows,
        }

    def _build(self, experts: list[int]) -> Any:
        loader = WeightLoader(
            self.checkpoint,
            self.ops,
            CPU,
            getattr(torch, self.case.dtype),
            dict.fromkeys(self.shape.moe_layers, experts),
            shard=Shard(self.attention.rank, self.attention.size),
        )
        build = build_model if self.has_tokens else build_experts_model
        return build(self.checkpoint.config, loader)

    def _parts(self) -> list[tuple[int, int]]:
        """The experts of each rank: uneven, and none on the first where there are many ranks."""
        size, total = self.group.size, self.shape.num_experts
        ends = [total * rank * rank // size**2 for rank in range(size + 1)]
        return list(pairwise(ends))

    def _dispatcher(self, experts: list[list[int]]) -> Any:
        weights = [[1.0] * len(held) for held in experts]
        tables = {
            layer: RoutingTable(layer, experts, weights, self.shape.num_experts)
            for layer in self.shape.moe_layers
        }
        if self.group.size == 1:
            return LocalDispatcher(tables)
        return CollectiveDispatcher(self.group, tables)

    def _engine(self) -> RankEngine:
        runner = Runner(
            self.model,
            self.caches,
            self.dispatcher,
            self.ops,
            PAGE_SIZE,
            CPU,
            self.timer,
            self.attention,
        )
        rank = self.group.rank
        if not self.has_tokens or self.attention.rank > 0:
            return Follower(rank, runner, self.dispatcher, self.timer)
        return Engine(
            plan_rank=rank,
            scheduler=Scheduler(
                num_pages=NUM_PAGES,
                page_size=PAGE_SIZE,
                max_tokens_per_step=self.case.tokens_per_step,
                max_sequences=8,
                max_live=64,
                max_context=512,
                prefix_caching=False,
            ),
            runner=runner,
            sampler=Sampler(self.shape.vocab_size, CPU),
            dispatcher=self.dispatcher,
            timer=self.timer,
            num_pages=NUM_PAGES,
            vocab_size=self.shape.vocab_size,
        )

    def _mine(self) -> list[tuple[int, list[int]]]:
        """Every leader takes its turn; the others get none."""
        if not self.has_tokens or self.attention.rank > 0:
            return []
        numbered = list(enumerate(self.case.prompts))
        degree = self.case.tensor_parallel
        return numbered[self.group.rank // degree :: self.case.num_attention_ranks // degree]

    def _request(self, number: int, prompt: Sequence[int]) -> Request:
        sampling = SamplingParams(
            temperature=0.0, max_tokens=self.case.num_tokens, ignore_eos=True, logprobs=5
        )
        return Request(request_id=str(number), prompt_ids=tuple(prompt), sampling=sampling)


def run(case: Case, world: MPI.Comm) -> dict[str, Any] | None:
    """On all ranks of the world; None where this one has no part in it."""
    rank = world.Get_rank()
    takes_part = rank < case.num_ranks
    has_tokens = rank < case.num_attention_ranks
    # Those that wait leave their cores to the others, as Split does not.
    WaitLoop(SECONDS, lambda: False).until(world.Ibarrier().Test, "the other ranks")
    members = world.Split(0 if takes_part else 1, rank)
    colour = rank // case.tensor_parallel if has_tokens else world.Get_size() + rank
    sharers = world.Split(colour, rank)
    if not takes_part:
        return None
    group, attention = (open_exchange(each) for each in (members, sharers))
    answer = Rank(case, group, attention, has_tokens).run()
    gathered = [json.loads(text) for text in group.allgather_bytes(json.dumps(answer).encode())]
    attention.close()
    group.close()
    return {"ranks": gathered, "answers": by_request(gathered, len(case.prompts))}


def open_exchange(communicator: MPI.Comm) -> Exchange:
    if communicator.Get_size() == 1:
        return LocalExchange()
    return MpiExchange(communicator, SECONDS, lambda: False)


def by_request(gathered: list[dict[str, Any]], num_prompts: int) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = [{"tokens": [], "logprobs": []} for _ in range(num_prompts)]
    for name, token, logprob, top in (each for rank in gathered for each in rank.pop("events")):
        answers[int(name)]["tokens"].append(token)
        answers[int(name)]["logprobs"].append([[token, logprob], *top])
    return answers


def main() -> None:
    torch.set_num_threads(1)
    world = MPI.COMM_WORLD
    try:
        cases = [Case(**case) for case in json.loads(Path(sys.argv[1]).read_text())]
        answers = [run(case, world) for case in cases]
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        world.Abort(1)
    if world.Get_rank() == 0:
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
