"""Phases apart, experts apart, a bridge, shared attention and an uneven plan, all at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from expert_plans import random_layer
from live_server import server_config
from moe_placement.plan import LayerPlan, Plan
from moe_placement.plan_file import save
from pool_jobs import links, plan_pools, pool
from rank_jobs import Ranks, prompts_of
from sharing_cases import NUM_TOKENS
from world_runs import MOE_LAYERS, NUM_EXPERTS

POOLS = [
    pool("decode", 2, shards=2, role="decode"),
    pool("prefill", 1, role="prefill"),
    pool("experts", 1, role="experts"),
]
PREFILL_RANK = 2
# As in test_unlike_pools: the reference is asked once for both.
PROMPTS = prompts_of((1, 5, 17, 33, 64, 90))
NUM_SHORT = 3


def write_plan(file: Path) -> None:
    """The rank that prefills has all experts; the others share them out among themselves."""
    generator, every = np.random.default_rng(5), tuple(range(NUM_EXPERTS))

    def layer() -> LayerPlan:
        shared = random_layer(generator, 3, NUM_EXPERTS, [0, 1, 2])
        slots, weights = list(shared.slots), list(shared.weights)
        slots.insert(PREFILL_RANK, every)
        weights.insert(PREFILL_RANK, (1.0,) * NUM_EXPERTS)
        return LayerPlan(tuple(slots), tuple(weights))

    layers = {number: layer() for number in MOE_LAYERS}
    save(Plan("tiny", NUM_EXPERTS, plan_pools(POOLS, "float32"), layers), file)


@pytest.fixture(scope="module")
def hand_over(
    ranks: Callable[[int], Ranks],
    checkpoint: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Any]:
    """hand_over(**fault): the prompts that are long enough for it."""
    file = tmp_path_factory.mktemp("together") / "plan.json"
    write_plan(file)
    config = server_config(
        checkpoint("qwen3_moe"),
        4,
        pools=POOLS,
        links=links(["decode", "experts"]),
        placement={"plan": str(file)},
        scheduler={"max_tokens_per_step": 24, "max_local_prefill": 20},
        deterministic=False,
    )
    job = {"config": config, "rounds": [PROMPTS[NUM_SHORT:]]}
    return lambda **fault: ranks(4).run(job | {"handover": fault})


@pytest.fixture(scope="module")
def expected(
    checkpoint: Callable[..., Path],
    reference: Callable[..., tuple[list[list[int]], list[torch.Tensor]]],
) -> list[list[int]]:
    tokens, _ = reference(checkpoint("qwen3_moe"), PROMPTS, 64)
    return [list(each[:NUM_TOKENS]) for each in tokens[NUM_SHORT:]]


def test_the_tokens_are_the_references(
    hand_over: Callable[..., Any], expected: list[list[int]]
) -> None:
    answer = hand_over()
    assert answer["tokens"] == [expected]
    (ranks,) = answer["ranks"]
    assert ranks[0]["num_handovers"] == len(expected)
    assert all(rank["num_expert_rows"] > 0 for rank in ranks)
    assert ranks[0]["link_bytes"]["decode>experts"] > 0 < ranks[3]["link_bytes"]["experts>decode"]


def test_swapped_heads_change_the_tokens(
    hand_over: Callable[..., Any], expected: list[list[int]]
) -> None:
    (tokens,) = hand_over(fault="swaps heads", faulty_rank=PREFILL_RANK)["tokens"]
    assert all(one != right for one, right in zip(tokens, expected, strict=True))
