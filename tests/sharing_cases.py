"""What the ranks of tests/moe_serve/handover/sharing_rank.py do: families, degrees and faults."""

from pathlib import Path
from typing import Any

from engine_runs import prompts_of
from families import FAMILIES
from live_server import server_config

NUM_RANKS = 4
NUM_TOKENS = 12
PAGE = 16
PROMPTS = prompts_of((70, 33, 64))
# The first one's beginning is known by then, at both ends.
NUM_KNOWN = 50 // PAGE * PAGE
LATER = [[*PROMPTS[0][:50], *prompts_of((20,), seed=1)[0]]]
# More than the pages of a few hold at once, some with a beginning in common.
MANY = [*prompts_of((90, 25, 66, 40), seed=2), *([*PROMPTS[0][:40], 9 + n] for n in range(4))]
FEW = {"page_size": 8, "num_pages": 22}

# By name: the family, ranks that share attention where prompts are computed and where they are
# continued, and perhaps a fault with the plan rank that has it. Those that decode come first.
Case = tuple[str, int, int, dict[str, Any]]
RIGHT: dict[str, Case] = {
    f"{family} {prefill} to {decode}": (family, prefill, decode, {})
    for family in ("qwen3_moe", "deepseek_v3")
    for prefill, decode in ((1, 2), (2, 1), (2, 2))
}
CROWDED: dict[str, Case] = {"few pages": ("qwen3_moe", 2, 2, {})}
# What never comes is given up soon.
DROPPED: dict[str, Case] = {
    name: (family, prefill, decode, {"fault": "stands still", "faulty_rank": rank, "idle": 1.0})
    for name, family, prefill, decode, rank in (
        ("a sender of heads", "qwen3_moe", 2, 1, 2),
        ("a sender of latents", "deepseek_v3", 2, 2, 3),
    )
}
WRONG: dict[str, Case] = {
    "swapped heads": ("qwen3_moe", 1, 2, {"fault": "swaps heads", "faulty_rank": 2}),
    "lost heads": ("qwen3_moe", 2, 2, {"fault": "loses what lands", "faulty_rank": 1}),
    "lost latents": ("deepseek_v3", 1, 2, {"fault": "loses what lands", "faulty_rank": 1}),
}


def config(path: Path, prefill: int, decode: int, **sections: Any) -> dict[str, Any]:
    """Pools that share attention among all of their ranks; what is left has experts alone."""
    ranks = {"decode": decode, "prefill": prefill, "experts": NUM_RANKS - prefill - decode}
    pools = [
        {
            "name": role,
            "device": "cpu",
            "ranks": count,
            "threads": 1,
            "role": role,
            "attention": {"tensor_parallel": 1 if role == "experts" else count},
        }
        for role, count in ranks.items()
        if count
    ]
    cache = {"page_size": PAGE, "num_pages": 128}
    scheduler = {"max_tokens_per_step": 24, "max_local_prefill": 20}
    tree = server_config(path, NUM_RANKS, pools=pools, cache=cache, scheduler=scheduler)
    return tree | sections


def bytes_of_a_token(family: str, num_receivers: int) -> int:
    """That leave for it, in float32 and all layers: each of several receivers needs its own copy
    of a latent, and its own part of the heads."""
    fields = FAMILIES[family]
    if "kv_lora_rank" in fields:
        width = (fields["kv_lora_rank"] + fields["qk_rope_head_dim"]) * num_receivers
    else:
        width = 2 * fields["num_key_value_heads"] * fields["head_dim"]
    return int(4 * width * fields["num_hidden_layers"])
