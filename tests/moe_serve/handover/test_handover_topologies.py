"""Handovers between EP groups of several ranks, all of which must wake when one rank has work."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine_runs import prompts_of
from live_server import LiveServer, live_server, server_config
from quick import QUICK_FAMILIES
from transformers import PreTrainedTokenizerFast

# tests/moe_serve/parallel/test_all_together.py has the quick case.
pytestmark = pytest.mark.slow

LENGTHS = (90, 33, 57, 140, 70, 64, 25, 100)
NEW_TOKENS = 16

# Role, ranks, and how many of them share one copy of attention.
POOLS = {
    "two and two": [("prefill", 2, 1), ("decode", 2, 1)],
    "both and experts": [("both", 1, 1), ("experts", 1, 1), ("prefill", 1, 1)],
    "sharing and sharing": [("prefill", 2, 2), ("decode", 2, 2)],
    "sharing and two": [("prefill", 2, 2), ("decode", 2, 1)],
    "two and sharing": [("prefill", 2, 1), ("both", 2, 2), ("experts", 1, 1)],
}


def config(path: Path, topology: str) -> tuple[int, dict[str, Any]]:
    pools = [
        {
            "name": role,
            "device": "cpu",
            "ranks": ranks,
            "threads": 1,
            "role": role,
            "attention": {"tensor_parallel": shards},
        }
        for role, ranks, shards in POOLS[topology]
    ]
    num_ranks = sum(ranks for _, ranks, _ in POOLS[topology])
    limits = {"max_tokens_per_step": 32, "max_local_prefill": 20}
    return num_ranks, server_config(path, num_ranks, pools=pools, scheduler=limits)


async def answers(server: LiveServer, prompts: Sequence[Sequence[int]]) -> list[str]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60.0) as client:
        sampling = {"max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True}
        found = await asyncio.gather(
            *(client.post("/v1/completions", json={"prompt": each, **sampling}) for each in prompts)
        )
    return [answer.json()["choices"][0]["text"] for answer in found]


def handovers(server: LiveServer) -> float:
    lines = httpx.get(f"{server.url}/metrics", timeout=10.0).text.splitlines()
    found = [line for line in lines if line.startswith("moe_serve_handovers_total")]
    return sum(float(line.split()[-1]) for line in found)


@pytest.mark.parametrize(
    ("topology", "family"), [(name, family) for name in POOLS for family in QUICK_FAMILIES]
)
def test_groups_of_several_ranks(
    topology: str,
    family: str,
    checkpoint: Callable[..., Path],
    reference: Any,
    tmp_path: Path,
) -> None:
    path, prompts = checkpoint(family), prompts_of(LENGTHS)
    tokens, _ = reference(path, prompts, NEW_TOKENS)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    expected = [str(tokenizer.decode(each, skip_special_tokens=True)) for each in tokens]
    num_ranks, tree = config(path, topology)
    with live_server(tmp_path, num_ranks, tree) as server:
        one_by_one = [asyncio.run(answers(server, [prompt]))[0] for prompt in prompts[:2]]
        assert one_by_one == expected[:2]
        assert asyncio.run(answers(server, prompts[2:])) == expected[2:]
        assert handovers(server) == len(LENGTHS)
        server.drain()
        assert server.wait_for_end(30.0) == 0, server.output
