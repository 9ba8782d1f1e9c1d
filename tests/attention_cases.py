"""What the ranks of tests/moe_serve/attention_groups compute: checkpoints, degrees and faults."""

from typing import Any

from rank_jobs import prompts_of

PROMPTS = prompts_of((5, 33, 90))
NUM_TOKENS = 24

# By name: a family of `families.FAMILIES`, and what is changed of it.
CHECKPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "latent": ("deepseek_v3", {}),
    "latent_biased": ("deepseek_v3", {"attention_bias": True, "vocab_size": 387}),
    "latent_whole_queries": ("deepseek_v2", {"moe_intermediate_size": 49}),
    "grouped": ("qwen3_moe", {}),
    "grouped_one_kv_head": ("mixtral", {"num_key_value_heads": 1}),
    "grouped_biased": ("glm4_moe", {"vocab_size": 387, "intermediate_size": 161}),
    "dense_biased": ("llama", {"attention_bias": True, "mlp_bias": True, "seed": 1}),
    "dense_tied": ("qwen3", {}),
}
# The checkpoint and the fault of its last member.
FAULTS = [
    ("latent", "drop_head"),
    ("latent", "drop_attention"),
    ("latent", "drop_shared_experts"),
    ("latent", "shift_vocabulary"),
    ("grouped", "drop_head"),
    ("grouped", "drop_attention"),
]
_BITS = {"deterministic": True, "dtype": "bfloat16"}

# By name: the checkpoint, ranks, tensor parallelism, and what else attention_rank.Case has.
CASES: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    **{f"{name} alone": (name, 1, 1, {}) for name in CHECKPOINTS},
    **{f"{name} two": (name, 2, 2, {}) for name in CHECKPOINTS},
    "latent four": ("latent", 4, 4, {}),
    "grouped_biased four": ("grouped_biased", 4, 4, {}),
    "latent two groups": ("latent", 4, 2, {}),
    "grouped two groups": ("grouped", 4, 2, {}),
    "latent with experts ranks": ("latent", 4, 2, {"num_experts_ranks": 2}),
    "grouped_one_kv_head with experts ranks": (
        "grouped_one_kv_head",
        3,
        2,
        {"num_experts_ranks": 1},
    ),
    "latent at once": ("latent", 2, 2, {"tokens_per_step": 256}),
    "latent bits": ("latent", 2, 2, _BITS),
    "latent bits at once": ("latent", 4, 2, {**_BITS, "tokens_per_step": 256}),
    **{f"{name} {fault}": (name, 2, 2, {"fault": fault}) for name, fault in FAULTS},
}
