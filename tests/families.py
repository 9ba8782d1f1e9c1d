"""Config fields of the small checkpoints, by family."""

from typing import Any

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
NUM_SPECIAL = len(SPECIAL_TOKENS)
VOCAB_SIZE = 384

COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = COMMON | {"num_key_value_heads": 2, "head_dim": 32}
LATENT = COMMON | {
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 24,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 48,
    "num_experts_per_tok": 3,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32,
    "beta_slow": 1,
}

FAMILIES: dict[str, dict[str, Any]] = {
    "deepseek_v3": LATENT
    | {
        "model_type": "deepseek_v3",
        "q_lora_rank": 40,
        "n_routed_experts": 16,
        "num_experts_per_tok": 4,
        "n_shared_experts": 1,
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 2.5,
        "norm_topk_prob": True,
        "rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
    },
    # V2-Lite.
    "deepseek_v2": LATENT
    | {
        "model_type": "deepseek_v2",
        "q_lora_rank": None,
        "n_routed_experts": 12,
        "n_shared_experts": 2,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "routed_scaling_factor": 1.0,
        "rope_parameters": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
    },
    # V2.
    "deepseek_v2_group": LATENT
    | {
        "model_type": "deepseek_v2",
        "q_lora_rank": 40,
        "n_routed_experts": 16,
        "n_shared_experts": 2,
        "n_group": 4,
        "topk_group": 2,
        "topk_method": "group_limited_greedy",
        "routed_scaling_factor": 4.0,
        "rope_parameters": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
    },
    "qwen3_moe": GROUPED
    | {
        "model_type": "qwen3_moe",
        "moe_intermediate_size": 48,
        "num_experts": 12,
        "num_experts_per_tok": 4,
        "norm_topk_prob": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    "glm4_moe": GROUPED
    | {
        "model_type": "glm4_moe",
        "moe_intermediate_size": 48,
        "n_routed_experts": 12,
        "num_experts_per_tok": 4,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "routed_scaling_factor": 2.5,
        "norm_topk_prob": True,
        "use_qk_norm": True,
        "attention_bias": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "partial_rotary_factor": 0.5,
        },
    },
    "mixtral": GROUPED
    | {
        "model_type": "mixtral",
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    "llama": GROUPED
    | {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    # Llama 3.1's rotary scaling.
    "llama3": GROUPED
    | {
        "model_type": "llama",
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "qwen3": GROUPED
    | {
        "model_type": "qwen3",
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
}
MOE_FAMILIES = (
    "deepseek_v3",
    "deepseek_v2",
    "deepseek_v2_group",
    "qwen3_moe",
    "glm4_moe",
    "mixtral",
)
