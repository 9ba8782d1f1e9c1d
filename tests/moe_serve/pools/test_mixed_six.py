"""configs/mixed_six.yaml as it is shipped: six unlike ranks answer an OpenAI client."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from live_server import LiveServer, mpirun
from openai import AsyncOpenAI
from prometheus_client.parser import text_string_to_metric_families
from rank_jobs import NEAR
from transformers import PreTrainedTokenizerFast

from moe_serve.demo import demo_checkpoint
from moe_serve.llm import LLM, Completion
from moe_serve.types import SamplingParams

CONFIGS = Path(__file__).parents[3] / "configs"
PROMPTS = ["Hello there", "One two three", "Once upon a time there was", "a", "The answer is", "42"]
NEW_TOKENS = 20


def mixed_six() -> dict[str, Any]:
    """On a port of its own choice; devices from the shipped folder."""
    config: dict[str, Any] = yaml.safe_load((CONFIGS / "mixed_six.yaml").read_text())
    for pool in config["pools"]:
        pool["hardware"] = str(CONFIGS / pool["hardware"])
    config["server"]["port"] = 0
    return config


def other_python(folder: Path) -> str:
    """Of an environment of its own, which has the packages of this one."""
    (folder / "bin").mkdir(parents=True)
    prefix = Path(sys.prefix)
    for name in ("lib", "bin/python", "pyvenv.cfg"):
        (folder / name).symlink_to(prefix / name)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Two programs, with an environment each."""
    folder = tmp_path_factory.mktemp("six")
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(mixed_six()))
    words = ["-m", "moe_serve.cli", "--config", str(file)]
    first, second = [sys.executable, *words], [other_python(folder / "other"), *words]
    server = LiveServer([*mpirun(2, *first), ":", "-n", "4", *second])
    try:
        server.wait_until_ready()
        yield server
        server.drain()
        assert server.process.wait(30) == 0
    finally:
        server.kill()


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


def until_a_tie(completion: Completion) -> str:
    """What any order of adding makes of the best two tokens of each step."""
    ties = (
        step
        for step, ((_, best), (_, second)) in enumerate(completion.top_logprobs)
        if best - second < NEAR
    )
    first = next(ties, None)
    if first is None:
        return completion.text
    tokenizer = PreTrainedTokenizerFast.from_pretrained(demo_checkpoint())
    text = str(tokenizer.decode(completion.token_ids[:first], skip_special_tokens=True))
    return text.rstrip("\ufffd")


def test_the_programs_have_environments_of_their_own(server: LiveServer) -> None:
    prefixes = [Path(rank.cmdline()[0]).parents[1] for rank in server.ranks()]
    assert len(set(prefixes[:2])) == len(set(prefixes[2:])) == 1
    assert prefixes[0] != prefixes[2]


def test_six_unlike_ranks_say_what_one_rank_says(answers: list[str]) -> None:
    alone = {
        "model": {"path": "demo", "dtype": "float32"},
        "pools": [{"name": "host", "device": "cpu", "threads": 1}],
        "cache": {"page_size": 16, "num_pages": 128},
        "deterministic": True,
    }
    overrides = [f"{key}={value}" for key, value in alone.items()]
    with LLM(CONFIGS / "demo.yaml", overrides) as llm:
        greedy = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, logprobs=2)
        alone = llm.generate(PROMPTS, greedy)
    expected = [until_a_tie(completion) for completion in alone]
    for answer, one, whole in zip(answers, expected, alone, strict=True):
        assert answer == one or (one != whole.text and answer.startswith(one))
    assert sum(map(len, expected)) > 0.9 * sum(len(each.text) for each in alone)
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
