"""configs/mixed_six.yaml as it is shipped: six unlike ranks answer an OpenAI client."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from live_server import LiveServer, live_server
from openai import AsyncOpenAI
from prometheus_client.parser import text_string_to_metric_families

from moe_serve.llm import LLM
from moe_serve.types import SamplingParams

CONFIGS = Path(__file__).parents[3] / "configs"
PROMPTS = ["Hello there", "One two three", "Once upon a time there was", "a", "The answer is", "42"]
NEW_TOKENS = 20


def mixed_six() -> dict[str, Any]:
    """On a port of its own choice, with one order of adding; devices from the shipped folder."""
    config: dict[str, Any] = yaml.safe_load((CONFIGS / "mixed_six.yaml").read_text())
    for pool in config["pools"]:
        pool["hardware"] = str(CONFIGS / pool["hardware"])
    config["server"]["port"] = 0
    return config | {"deterministic": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("six"), 6, mixed_six()) as server:
        yield server
        server.drain()
        assert server.process.wait(30) == 0


@pytest.fixture(scope="module")
def answers(server: LiveServer) -> list[str]:
    async def ask() -> list[str]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            completions = await asyncio.gather(
                *(
                    client.completions.create(
                        model="demo", prompt=prompt, max_tokens=NEW_TOKENS, temperature=0
                    )
                    for prompt in PROMPTS
                )
            )
        return [completion.choices[0].text for completion in completions]

    return asyncio.run(ask())


def test_six_unlike_ranks_say_what_one_rank_says(answers: list[str]) -> None:
    alone = {
        "model": {"path": "demo", "dtype": "float32"},
        "pools": [{"name": "host", "device": "cpu", "threads": 1}],
        "cache": {"page_size": 16, "num_pages": 128},
        "deterministic": True,
    }
    overrides = [f"{key}={value}" for key, value in alone.items()]
    with LLM(CONFIGS / "demo.yaml", overrides) as llm:
        greedy = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS)
        expected = [completion.text for completion in llm.generate(PROMPTS, greedy)]
    assert answers == expected
    assert len(set(expected)) == len(PROMPTS)


def samples(server: LiveServer, name: str) -> dict[tuple[str, ...], float]:
    text = httpx.get(f"{server.url}/metrics").text
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


@pytest.mark.usefixtures("answers")
def test_metrics_tell_what_went_where(server: LiveServer) -> None:
    rows = samples(server, "moe_serve_expert_rows_total")
    assert all(rows[str(rank),] > 0 for rank in range(6))
    # Faster devices hold more experts, and so compute more.
    assert rows["0",] + rows["1",] > rows["2",] + rows["3",] > rows["4",] + rows["5",]
    crossed = samples(server, "moe_serve_link_bytes_total")
    for link in ("gpu>npu", "npu>gpu", "gpu>host", "host>gpu", "npu>host", "host>npu"):
        assert sum(count for key, count in crossed.items() if link in key) > 0, link
    prompts = samples(server, "moe_serve_prompt_tokens_total")
    assert all(prompts.get((rank,), 0) == 0 for rank in ("4", "5"))
    segments = samples(server, "moe_serve_segments_total")
    assert all(segments[str(rank),] > 0 for rank in range(6))
