"""Small random checkpoints whose greedy output can tell a right engine from a wrong one."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from families import FAMILIES, NUM_SPECIAL, SPECIAL_TOKENS, VOCAB_SIZE
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = (
    "A mixture of experts sends every token to a few of its experts, and adds what they answer. "
    "The router scores all of them; only the best are asked, so that most of the weights rest. "
    "Seventeen small ships sailed past the harbour before dawn, carrying salt, timber and wool. "
    "她说:今天天气很好,我们一起去公园吧。模型把每个词元送给几位专家,再把答案加起来。🙂🚢"
)


def make_checkpoint(
    family: str,
    path: Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int | None = None,
    published_config: bool = True,
    **overrides: Any,
) -> Path:
    """Write a random checkpoint of one of `families.FAMILIES` to `path`, and return it.

    Its greedy output never holds a special token, end of sequence (id 2) included.

    Args:
        shard_bytes: the most bytes of a shard; None writes one `model.safetensors`.
        published_config: spell config.json as on the hub; False leaves it as transformers does.
        overrides: fields of the family's config.
    """
    quiet_transformers()
    config = AutoConfig.for_model(**{**FAMILIES[family], **overrides})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        randomise(model)
    model.to(dtype)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            # Published in float32 whatever the weights are in.
            buffer.data = buffer.data.float()
    model.save_pretrained(path, max_shard_size=shard_bytes or "1GB")
    make_tokenizer().save_pretrained(path)
    if published_config:
        rewrite_json(path / "config.json", as_published)
    return path


def quiet_transformers() -> None:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@torch.no_grad()
def randomise(model: torch.nn.Module) -> None:
    """Weights with which attention, router and experts all sway the next token."""
    for name, weight in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("e_score_correction_bias"):
            weight.uniform_(-0.2, 0.2)
        elif "norm" in name:
            weight.uniform_(0.5, 1.5)
        elif name.endswith("bias"):
            weight.normal_(std=0.3)
        elif "embed_tokens" in name:
            weight.normal_(std=0.5)
        elif weight.dim() >= 2:
            weight.normal_(std=gain(name) * weight.shape[-1] ** -0.5)
    # Without these signs, a tied embedding would make each token choose itself.
    model.model.norm.weight.mul_(torch.randn(model.config.hidden_size).sign())
    output = model.get_output_embeddings().weight
    output[:NUM_SPECIAL] = 0


def gain(name: str) -> float:
    """Standard deviation of a projection's output, for inputs of unit size."""
    if "q_proj" in name or "q_b_proj" in name:
        return 3.0
    return 2.0 if "experts" in name or ".gate." in name else 1.0


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over every byte, so that any text has tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=1,
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def rewrite_json(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text())), indent=1))


def as_published(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spelling of config.json on the hub, where transformers 5 writes another."""
    published = {key: value for key, value in config.items() if key != "rope_parameters"}
    rope = dict(config["rope_parameters"])
    published["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        published["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    published["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    if rope["rope_type"] == "yarn":
        rope["type"] = rope.pop("rope_type")
    if config["model_type"] == "qwen3_moe":
        published["num_experts"] = published.pop("num_local_experts")
    if config["model_type"].startswith("deepseek"):
        del published["head_dim"]
    if config["model_type"] == "deepseek_v3":
        published |= {"topk_method": "noaux_tc", "scoring_func": "sigmoid"}
    published["torch_dtype"] = published.pop("dtype")
    return published
