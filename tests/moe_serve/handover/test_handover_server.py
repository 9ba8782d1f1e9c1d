"""Prefill and decode apart, in a live `mpirun -n 2` server behind the OpenAI client."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine_runs import prompts_of
from live_server import LiveServer, live_server, server_config
from openai import AsyncOpenAI
from prometheus_client.parser import text_string_to_metric_families
from transformers import PreTrainedTokenizerFast

DECODE, PREFILL = 0, 1
CHUNK = 32
LENGTHS = (100, 33, 57, 140, 70, 64)
NEW_TOKENS = 16


def config(path: Path) -> dict[str, Any]:
    pools = [
        {"name": role, "device": "cpu", "ranks": 1, "threads": 1, "role": role}
        for role in ("decode", "prefill")
    ]
    limits = {"max_tokens_per_step": CHUNK, "max_local_prefill": 20}
    return server_config(path, 2, pools=pools, scheduler=limits)


@pytest.fixture(
    scope="module", params=["deepseek_v3", pytest.param("qwen3_moe", marks=pytest.mark.slow)]
)
def served(request: pytest.FixtureRequest, checkpoint: Callable[..., Path]) -> Path:
    return checkpoint(request.param)


@pytest.fixture(scope="module")
def server(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("apart"), 2, config(served)) as running:
        yield running


@pytest.fixture
def expected(served: Path, reference: Any) -> Callable[..., list[str]]:
    """The texts that transformers gives after each prompt."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(served)

    def texts(prompts: Sequence[Sequence[int]], num_tokens: int = NEW_TOKENS) -> list[str]:
        tokens, _ = reference(served, prompts, num_tokens)
        return [str(tokenizer.decode(each, skip_special_tokens=True)) for each in tokens]

    return texts


class Metrics:
    """What one counter of one rank says, since this was made."""

    def __init__(self, server: LiveServer) -> None:
        self._url = f"{server.url}/metrics"
        self._before: dict[tuple[str, int], float] = self._read()

    def _read(self) -> dict[tuple[str, int], float]:
        text = httpx.get(self._url, timeout=10.0).text
        return {
            (sample.name, int(sample.labels["rank"])): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if set(sample.labels) == {"rank"}
        }

    def since(self, name: str, rank: int) -> float:
        key = (f"moe_serve_{name}", rank)
        return self._read()[key] - self._before[key]

    def wait_for(self, name: str, rank: int, value: float, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while (found := self._read()[f"moe_serve_{name}", rank]) != value:
            assert time.monotonic() < deadline, f"{name} of rank {rank} stays {found}"
            time.sleep(0.05)


@pytest.fixture
def ask(server: LiveServer) -> Callable[..., list[str]]:
    """Streams completions of all prompts at once, each started some seconds after the last."""

    async def one(client: AsyncOpenAI, prompt: Sequence[int], num_tokens: int) -> str:
        stream = await client.completions.create(
            model="tiny",
            prompt=list(prompt),
            max_tokens=num_tokens,
            temperature=0,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def all_of(prompts: Sequence[Sequence[int]], num_tokens: int, pause: float) -> list[str]:
        url = f"{server.url}/v1"
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
            started = []
            for prompt in prompts:
                started.append(asyncio.create_task(one(client, prompt, num_tokens)))
                await asyncio.sleep(pause)
            return list(await asyncio.gather(*started))

    def run(
        prompts: Sequence[Sequence[int]], num_tokens: int = NEW_TOKENS, pause: float = 0.0
    ) -> list[str]:
        return asyncio.run(all_of(prompts, num_tokens, pause))

    return run


def test_one_after_the_other(server: LiveServer, ask: Any, expected: Any) -> None:
    metrics, prompts = Metrics(server), prompts_of(LENGTHS)
    assert [ask([prompt])[0] for prompt in prompts] == expected(prompts)
    assert metrics.since("handovers_total", DECODE) == len(prompts)
    assert metrics.since("handover_failures_total", DECODE) == 0
    assert metrics.since("generated_tokens_total", PREFILL) == 0
    assert metrics.since("kv_bytes_total", PREFILL) > 0 == metrics.since("kv_bytes_total", DECODE)


def test_many_at_once_and_short_ones_among_them(
    server: LiveServer, ask: Any, expected: Any
) -> None:
    metrics, prompts = Metrics(server), prompts_of((*LENGTHS, 3, 19), seed=1)
    assert ask(prompts) == expected(prompts)
    assert metrics.since("handovers_total", DECODE) == len(LENGTHS)
    metrics.wait_for("pages_used", PREFILL, 0)


def test_what_is_cached_is_not_sent_again(server: LiveServer, ask: Any, expected: Any) -> None:
    (prompt,) = prompts_of((160,), seed=2)
    whole, part = Metrics(server), prompts_of((50,), seed=3)[0]
    assert ask([prompt]) == expected([prompt])
    all_bytes = whole.since("kv_bytes_total", PREFILL)
    longer, rest = [*prompt, *part], Metrics(server)
    assert ask([longer]) == expected([longer])
    # 160 tokens are 10 pages; of 209 that are due, 49 are left.
    assert rest.since("kv_bytes_total", PREFILL) == all_bytes * 49 / 159
    assert rest.since("prefix_hit_tokens_total", DECODE) == 160


def test_who_waits_for_keys_and_values_sleeps(server: LiveServer, ask: Any) -> None:
    metrics, prompts = Metrics(server), prompts_of((900,), seed=4)
    ask(prompts, num_tokens=1)
    assert metrics.since("handovers_total", DECODE) == 1
    assert metrics.since("steps_total", PREFILL) >= 900 / CHUNK
    assert metrics.since("steps_total", DECODE) <= 6


@pytest.mark.slow
def test_streams_go_on_while_long_prompts_arrive(
    server: LiveServer, ask: Any, expected: Any
) -> None:
    metrics, prompts = Metrics(server), prompts_of((40, 300, 200, 250), seed=5)
    assert ask(prompts, num_tokens=48, pause=0.05) == expected(prompts, 48)
    assert metrics.since("handovers_total", DECODE) == 4


def test_a_client_that_leaves_frees_both_ends(server: LiveServer) -> None:
    metrics, (prompt,) = Metrics(server), prompts_of((950,), seed=6)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{server.url}/v1/completions",
            json={"model": "tiny", "prompt": prompt, "max_tokens": 60},
            timeout=0.1,
        )
    for rank in (DECODE, PREFILL):
        metrics.wait_for("pages_used", rank, 0)
        metrics.wait_for("running", rank, 0)


def test_a_prefill_rank_that_stops_costs_time_alone_and_may_come_back(
    server: LiveServer, ask: Any, expected: Any
) -> None:
    metrics, prompts = Metrics(server), prompts_of((150, 90, 200), seed=7)
    stopped = server.ranks()[PREFILL]
    stopped.send_signal(signal.SIGSTOP)
    try:
        assert ask(prompts) == expected(prompts)
        assert metrics.since("handovers_total", DECODE) == 0
        assert metrics.since("handover_failures_total", DECODE) == 3
    finally:
        stopped.send_signal(signal.SIGCONT)
    deadline, seed = time.monotonic() + 20.0, 8
    while metrics.since("handovers_total", DECODE) == 0:
        assert time.monotonic() < deadline, "the prefill rank does not come back"
        prompts = prompts_of((60,), seed)
        assert ask(prompts) == expected(prompts)
        seed += 1
    metrics.wait_for("pages_used", PREFILL, 0)


def test_it_drains(server: LiveServer) -> None:
    server.drain()
    assert server.wait_for_end(20.0) == 0, server.output
