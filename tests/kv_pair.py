"""Two engines in this process, one that prefills and one that decodes, joined as a server's are."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from engine_runs import engine, prompts_of
from moe_comm.kv.endpoint import KvEndpoint
from moe_comm.kv.limits import KvLimits

from moe_serve.build import Rank
from moe_serve.config.tree import LinkConfig, PoolConfig
from moe_serve.control.planning.groups import RankGroups
from moe_serve.kv_join import _hello, _meet
from moe_serve.kv_ways import KvEnd
from moe_serve.llm import LLM
from moe_serve.types import Request, SamplingParams, TokenEvent

PREFILL, DECODE = 0, 1
LIMITS = KvLimits(silence_seconds=0.5, idle_seconds=1.0)
LENGTHS = (100, 33, 2, 57, 64, 65)
NAMES = count()
SAMPLINGS = [
    SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True, logprobs=3),
    SamplingParams(
        temperature=1.0, seed=5, max_tokens=12, repetition_penalty=1.3, ignore_eos=True, logprobs=3
    ),
]


def requests(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> list[Request]:
    return [
        Request(
            request_id=f"r{next(NAMES)}",
            prompt_ids=tuple(prompt),
            sampling=SAMPLINGS[number % len(SAMPLINGS)],
        )
        for number, prompt in enumerate(prompts_of(lengths, seed))
    ]


class Pair:
    """Attributes:
    seconds: that a run may take.
    """

    seconds = 30.0

    def __init__(
        self, prefill: LLM, decode: LLM, limits: KvLimits, links: tuple[LinkConfig, ...] = ()
    ) -> None:
        pools = tuple(
            PoolConfig(name=role, device="cpu", threads=1, role=role)
            for role in ("prefill", "decode")
        )
        self.ranks = [_as_member(llm._rank, pools, links) for llm in (prefill, decode)]
        self.endpoints = [
            KvEndpoint(_hello(rank, number), b"secret", limits=limits)
            for number, rank in enumerate(self.ranks)
        ]
        ends = {
            number: KvEnd(_hello(rank, number), f"tcp://127.0.0.1:{endpoint.port}")
            for number, (rank, endpoint) in enumerate(zip(self.ranks, self.endpoints, strict=True))
        }
        for number, (rank, endpoint) in enumerate(zip(self.ranks, self.endpoints, strict=True)):
            _meet(rank, number, endpoint, ends, there=ends)
        self.prefill, self.decode = (rank.engine for rank in self.ranks)
        self.events: dict[str, list[TokenEvent]] = {}

    def close(self) -> None:
        for endpoint in self.endpoints:
            endpoint.close()

    def handover_of(self, number: int) -> Any:
        engine: Any = self.ranks[number].engine
        return engine._handover

    def add(self, request: Request) -> None:
        """To both, as the front end does."""
        self.events[request.request_id] = []
        self.decode.add(replace(request, prefill_rank=PREFILL))
        prompt_ids, sampling = request.prompt_ids[:-1], SamplingParams(max_tokens=1)
        self.prefill.add(
            Request(
                request_id=request.request_id,
                prompt_ids=prompt_ids,
                sampling=sampling,
                decode_rank=DECODE,
            )
        )

    def turn(self, prefill: bool = True, decode: bool = True) -> None:
        """A look at what has come, and a step of each that has work."""
        for member, takes_part in ((self.prefill, prefill), (self.decode, decode)):
            if not takes_part:
                continue
            member.poll()
            if member.has_work:
                for event in member.step():
                    self.events[event.request_id].append(event)

    def until(self, condition: Callable[[], bool], **who: bool) -> None:
        deadline = time.monotonic() + self.seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            self.turn(**who)
            time.sleep(0.0005)

    def until_all_ended(self, **who: bool) -> None:
        self.until(
            lambda: all(each and each[-1].finish_reason for each in self.events.values()), **who
        )

    def until_idle(self) -> None:
        """Nothing is held for the other end any more."""
        self.until(lambda: all(not rank.engine.stats().num_running for rank in self.ranks))

    def tokens(self) -> list[list[int | None]]:
        return [[event.token_id for event in each] for each in self.events.values()]

    def run(self, requests: Sequence[Request], **who: bool) -> list[list[int | None]]:
        """Tokens of requests that are added together."""
        self.events = {}
        for request in requests:
            self.add(request)
        self.until_all_ended(**who)
        return self.tokens()


def _as_member(rank: Rank, pools: tuple[PoolConfig, ...], links: tuple[LinkConfig, ...]) -> Rank:
    config = replace(rank.config, pools=pools, links=links)
    apart = ((PREFILL,), (DECODE,))
    parts = replace(rank.parts, groups=RankGroups(steps=apart, native=apart, attention=apart))
    return replace(rank, config=config, parts=parts, homes=(DECODE,), prefill_ranks=(PREFILL,))


@contextmanager
def pair(
    path: Path, limits: KvLimits = LIMITS, links: tuple[LinkConfig, ...] = (), **settings: Any
) -> Iterator[Pair]:
    """
    Args:
        links: between pools named prefill and decode.
        settings: of both engines.
    """
    settings = {"deterministic": True, "prefix": True, "page_size": 8} | settings
    with ExitStack() as stack:
        made = Pair(
            *(stack.enter_context(engine(path, **settings)) for _ in range(2)), limits, links
        )
        stack.callback(made.close)
        yield made
