"""Prompts handed over between ranks that share attention, one engine for each case.

A case has `config` (a file with a pool that prefills, beside one that has all that is decoded),
`rounds` (each a list of prompts, that one engine is given together), and perhaps a `fault`, see
handover_faults.FAULTS, the plan rank that has it, and the seconds after which a transfer that is
`idle` is given up. Its answer has `tokens` (by round, of each prompt) and `ranks` (by round, what
each rank counted).
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from unittest.mock import patch

from handover_faults import plant
from moe_comm.header import StepHeader, agree
from moe_comm.kv.limits import KvLimits
from sharing_cases import NUM_TOKENS

import moe_serve.kv_join
from moe_serve.bring_up import Meeting
from moe_serve.kv_join import join_kv
from moe_serve.llm import LLM
from moe_serve.types import Request, SamplingParams, TokenEvent

SECONDS = 30.0


class Group:
    """One rank's part in a case."""

    def __init__(self, llm: LLM) -> None:
        self.rank: Any = llm._rank
        self.number = self.rank.parts.rank
        self.engine = self.rank.engine
        self.num_requests = 0

    def serve(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Until all ranks of the EP group have nothing left to do -> the tokens that came here."""
        names = [f"{self.num_requests + number}" for number in range(len(prompts))]
        self.num_requests += len(prompts)
        for name, prompt in zip(names, prompts, strict=True):
            self._add(name, tuple(prompt))
        events: list[TokenEvent] = []
        deadline = time.monotonic() + SECONDS
        while True:
            self.engine.poll()
            header = agree(self.rank.exchange, self._header(events, len(prompts)))
            if header.work:
                events += self.engine.step()
            elif not header.stop:
                assert time.monotonic() < deadline, "the handovers do not end"
                time.sleep(0.001)
            else:
                return [tokens_of(name, events) for name in names]

    def _add(self, name: str, prompt: tuple[int, ...]) -> None:
        """To both leaders, as the front end does."""
        decode, prefill = self.rank.homes[0], self.rank.prefill_ranks[0]
        greedy = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True)
        if self.number == decode:
            request = Request(
                request_id=name, prompt_ids=prompt, sampling=greedy, prefill_rank=prefill
            )
            self.engine.add(request)
        elif self.number == prefill:
            request = Request(
                request_id=name, prompt_ids=prompt[:-1], sampling=greedy, decode_rank=decode
            )
            self.engine.add(request)

    def _header(self, events: Sequence[TokenEvent], num_prompts: int) -> StepHeader:
        """A leader that is done says so; the others go on with what they have to say."""
        stop = False
        if self.number == self.rank.homes[0]:
            stop = sum(event.finish_reason is not None for event in events) == num_prompts
        elif self.number == self.rank.prefill_ranks[0]:
            stats = self.engine.stats()
            stop = not stats.num_running and not stats.num_waiting
        return StepHeader(work=self.engine.has_work, wake=0, plan_epoch=0, stop=stop)


def tokens_of(name: str, events: Sequence[TokenEvent]) -> list[int]:
    return [event.token_id for event in events if event.request_id == name and event.token_id]


def hand_over(case: dict[str, Any], meeting: Meeting) -> dict[str, Any]:
    tokens, ranks = [], []
    limits = KvLimits(idle_seconds=case.get("idle", SECONDS))
    patient = patch.object(moe_serve.kv_join, "_limits", lambda config: limits)
    with patient, LLM(case["config"], meeting=meeting) as llm:
        group = Group(llm)
        with plant(case.get("fault"), group.number == case.get("faulty_rank")):
            joined = join_kv(group.rank, meeting, b"secret", {})
            for prompts in case["rounds"]:
                answer = group.serve(prompts)
                mine = json.dumps([answer, asdict(group.engine.stats())]).encode()
                told = [json.loads(each) for each in meeting.exchange.allgather_bytes(mine)]
                tokens.append(told[group.rank.homes[0]][0])
                ranks.append([stats for _, stats in told])
            if joined is not None and joined.endpoint is not None:
                joined.endpoint.close()
    return {"tokens": tokens, "ranks": ranks}
