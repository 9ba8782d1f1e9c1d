"""Whether two ends serve the same model: a digest of what in its config.json shapes the cache."""

import hashlib
import json
from collections.abc import Mapping

SHAPE_KEYS = (
    "architectures",
    "attention_bias",
    "first_k_dense_replace",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "kv_lora_rank",
    "model_type",
    "moe_intermediate_size",
    "n_group",
    "n_routed_experts",
    "n_shared_experts",
    "norm_topk_prob",
    "num_attention_heads",
    "num_experts",
    "num_experts_per_tok",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_local_experts",
    "partial_rotary_factor",
    "q_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "routed_scaling_factor",
    "scoring_func",
    "sliding_window",
    "topk_group",
    "topk_method",
    "v_head_dim",
    "vocab_size",
)


def model_digest(name: str, config: Mapping[str, object]) -> str:
    """SHA-256, in hexadecimal, of the name and of config.json's `SHAPE_KEYS`.

    Keys that are absent or null count as absent. The weights' format is left out: the same model
    in bfloat16 and in int8 has one digest.
    """
    kept = {key: config[key] for key in SHAPE_KEYS if config.get(key) is not None}
    document = json.dumps([name, kept], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(document.encode()).hexdigest()
