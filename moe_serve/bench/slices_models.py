"""The models of the slices benchmark, small and random, and configs that serve them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COMMON: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_DENSE: dict[str, Any] = {"model_type": "llama"}
_MOE: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 128,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
}
# Of weights, times the square root of the width: large enough that answers are no repetitions.
_SPREAD = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchModel:
    """One model of a config.

    Attributes:
        rank: the only one that it is on; -1 is all of them.
    """

    name: str
    path: Path
    percent: int
    memory_mb: int
    mode: str = "share"
    rank: int = -1

    def entry(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "name": self.name,
            "dtype": "float32",
            "slice": {
                "compute_percent": self.percent,
                "memory_mb": self.memory_mb,
                "mode": self.mode,
            },
            **({"spread": "all"} if self.rank < 0 else {"spread": "one", "rank": self.rank}),
        }


def write_models(folder: Path, layers: Mapping[str, int], **fields: int) -> dict[str, Path]:
    """Checkpoints by name, without tokenizers; those with `moe` in their names have experts.

    Args:
        layers: of each.
        fields: of their config.json, where they are others than usual.
    """
    return {
        name: _write_model(folder / name, seed, _fields(name, num_layers) | fields)
        for seed, (name, num_layers) in enumerate(layers.items())
    }


def _fields(name: str, num_layers: int) -> dict[str, Any]:
    kind = _MOE if "moe" in name else _DENSE
    return {**_COMMON, **kind, "num_hidden_layers": num_layers}


def _write_model(path: Path, seed: int, fields: dict[str, Any]) -> Path:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    quiet: Any = logging.disable_progress_bar
    quiet()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        from_config: Any = AutoModelForCausalLM.from_config
        spread = _SPREAD * fields["hidden_size"] ** -0.5
        model = from_config(AutoConfig.for_model(**fields, initializer_range=spread))
    model.save_pretrained(path)
    return path


def config_of(
    models: Sequence[BenchModel],
    *,
    num_ranks: int = 1,
    max_step: float = 0.004,
    max_tokens: int = 1024,
    max_sequences: int = 32,
    page_size: int = 16,
    deterministic: bool = False,
    spare_mb: int = 0,
) -> dict[str, Any]:
    """Models on ranks of one thread each.

    Args:
        max_step: seconds; scheduler.max_step.
        max_tokens, max_sequences: of a step.
        spare_mb: of each rank's memory, for models that come later.
    """
    memory_mb = spare_mb + sum(model.memory_mb for model in models)
    return {
        "models": [model.entry() for model in models],
        "pools": [
            {
                "name": "host",
                "device": "cpu",
                "ranks": num_ranks,
                "threads": 1,
                "memory": f"{memory_mb}MiB",
            }
        ],
        "scheduler": {
            "max_tokens_per_step": max_tokens,
            "max_sequences": max_sequences,
            "max_step": f"{max_step * 1e3:g}ms",
        },
        "cache": {"page_size": page_size, "prefix": False, "memory_fraction": 1.0},
        "deterministic": deterministic,
    }
