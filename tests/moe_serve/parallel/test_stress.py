"""More requests than pages over HTTP: each ends, with the tokens that it gets when it is alone."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from live_server import LiveServer, live_server, server_config
from rank_jobs import Ranks, greedy, job, prompts_of

from moe_serve.edge.logprobs import token_text
from moe_serve.edge.tokenizer import ModelTokenizer

MOST_TOKENS = 48
LONGEST_PROMPT = 120


@dataclass(frozen=True)
class Call:
    """One HTTP request: the first `num_tokens` of a prompt's answer."""

    prompt: int
    num_tokens: int
    streamed: bool


@dataclass(frozen=True)
class Answer:
    """Tokens as the API spells them, and their exact log-probabilities."""

    tokens: list[str]
    logprobs: list[float]
    finish_reason: str | None


@pytest.mark.slow
@pytest.mark.parametrize(("num_calls", "at_once", "num_pages"), [(40, 32, 48), (500, 64, 120)])
def test_every_request_ends_as_if_it_were_alone(
    num_calls: int,
    at_once: int,
    num_pages: int,
    ranks: Callable[[int], Ranks],
    checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    path = checkpoint("deepseek_v3")
    generator = np.random.default_rng(num_calls)
    prompts = prompts_of(generator.integers(1, LONGEST_PROMPT, num_calls // 5).tolist(), num_calls)
    calls = [
        Call(
            int(generator.integers(len(prompts))),
            int(generator.integers(1, MOST_TOKENS + 1)),
            streamed=number % 4 == 0,
        )
        for number in range(num_calls)
    ]
    alone = answers_alone(ranks(1), path, prompts)
    config = server_config(path, 2, cache={"page_size": 4, "num_pages": num_pages})
    with live_server(tmp_path, 2, config) as server:
        answers = asyncio.run(ask(server.url, prompts, calls, at_once))
        check_counters(server, num_calls)
    for call, answer in zip(calls, answers, strict=True):
        whole = alone[call.prompt]
        assert answer.finish_reason == "length"
        assert answer.tokens == whole.tokens[: call.num_tokens]
        assert answer.logprobs == whole.logprobs[: call.num_tokens]


def answers_alone(ranks: Ranks, path: Path, prompts: Sequence[list[int]]) -> list[Answer]:
    """Each prompt's answer, computed by one rank that has nothing else to do."""
    token_bytes = ModelTokenizer(path).token_bytes
    rounds = [[greedy(prompt, MOST_TOKENS)] for prompt in prompts]
    return [
        Answer(
            [token_text(token_bytes[token]) for token in single["tokens"]],
            [float.fromhex(bits.split()[0]) for bits in single["bits"]],
            "length",
        )
        for (single,) in ranks.run(job(path, 1, rounds))["rounds"]
    ]


async def ask(
    url: str, prompts: Sequence[list[int]], calls: Sequence[Call], at_once: int
) -> list[Answer]:
    free = asyncio.Semaphore(at_once)
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(
        base_url=url, timeout=120, limits=limits, trust_env=False
    ) as client:

        async def one(call: Call) -> Answer:
            async with free:
                return await complete(client, prompts[call.prompt], call)

        return await asyncio.gather(*map(one, calls))


async def complete(client: httpx.AsyncClient, prompt: list[int], call: Call) -> Answer:
    body = {
        "prompt": prompt,
        "max_tokens": call.num_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "logprobs": 0,
        "stream": call.streamed,
    }
    async with client.stream("POST", "/v1/completions", json=body) as response:
        text = (await response.aread()).decode()
    assert response.status_code == 200, text
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    if call.streamed:
        assert lines.pop() == "[DONE]"
    return joined([json.loads(line)["choices"][0] for line in lines])


def joined(choices: Sequence[dict[str, Any]]) -> Answer:
    parts = [choice["logprobs"] for choice in choices]
    return Answer(
        [token for part in parts for token in part["tokens"]],
        [value for part in parts for value in part["token_logprobs"]],
        choices[-1]["finish_reason"],
    )


def check_counters(server: LiveServer, num_calls: int) -> None:
    metrics = httpx.get(f"{server.url}/metrics", trust_env=False).text

    def total(name: str) -> float:
        values = re.findall(rf"^moe_serve_{name}{{.*}} (.+)$", metrics, re.MULTILINE)
        assert values, name
        return sum(map(float, values))

    assert total("preemptions_total") > num_calls / 50
    assert total("requests_total") == num_calls
    assert total("live_requests") == 0
