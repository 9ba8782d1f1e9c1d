"""Ranks on GPUs among themselves and beside CPUs, under uneven plans: the reference's tokens."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from live_server import server_config
from pool_jobs import links, pool, pool_job
from rank_jobs import Ranks, follow, greedy, prompts_of
from sharing_cases import NUM_TOKENS

pytestmark = pytest.mark.slow

NEW_TOKENS = 24
PROMPTS = prompts_of((1, 5, 17, 33, 64, 90))
TOPOLOGIES = {
    "NCCL": [pool("gpus", 4, device="cuda")],
    "shared attention": [pool("gpus", 4, shards=2, device="cuda")],
    "bridge": [pool("gpus", 2, device="cuda"), pool("hosts", 2)],
    "experts apart": [
        pool("gpus", 2, shards=2, device="cuda"),
        pool("hosts", 1, role="experts"),
        pool("others", 1, role="experts", device="cuda"),
    ],
}
APART = [
    pool("decode", 2, shards=2, role="decode", device="cuda"),
    pool("prefill", 1, role="prefill", device="cuda"),
    pool("experts", 1, role="experts"),
]
Launch = Callable[[dict[str, Any]], Any]
Reference = Callable[..., tuple[list[list[int]], list[torch.Tensor]]]


@pytest.fixture
def launch(gpus: Callable[..., Mapping[str, str]], tmp_path: Path) -> Launch:
    """launch(job): what four ranks answer."""

    def run(job: dict[str, Any]) -> Any:
        ranks = Ranks(4, tmp_path, gpus(4))
        try:
            return ranks.run(job)
        finally:
            ranks.close()

    return run


@pytest.mark.parametrize("family", ["deepseek_v3", "qwen3_moe"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_tokens_are_the_references(
    topology: str,
    family: str,
    launch: Launch,
    checkpoint: Callable[..., Path],
    reference: Reference,
    tmp_path: Path,
) -> None:
    pools = TOPOLOGIES[topology]
    asked = [greedy(prompt, NEW_TOKENS) for prompt in PROMPTS]
    job = pool_job(checkpoint(family), pools, tmp_path / "plan.json", asked)
    (answers,) = launch(job)["rounds"]
    expected, logits = reference(checkpoint(family), PROMPTS, 64)
    followed = [
        follow(answer, right[:NEW_TOKENS], logits_SV[:NEW_TOKENS])
        for answer, right, logits_SV in zip(answers, expected, logits, strict=True)
    ]
    assert sum(followed) > 0.9 * NEW_TOKENS * len(PROMPTS)


def test_prompts_are_computed_apart(
    launch: Launch, checkpoint: Callable[..., Path], reference: Reference
) -> None:
    path, prompts = checkpoint("qwen3_moe"), PROMPTS[3:]
    config = server_config(
        path,
        4,
        pools=APART,
        links=links(["decode", "experts"]),
        scheduler={"max_tokens_per_step": 24, "max_local_prefill": 20},
        deterministic=False,
    )
    answer = launch({"config": config, "rounds": [prompts], "handover": {}})
    expected, _ = reference(path, prompts, NUM_TOKENS)
    assert answer["tokens"] == [[list(each) for each in expected]]
    assert answer["ranks"][0][0]["num_handovers"] == len(prompts)
