"""Small random encoders whose numbers can tell a right engine from a wrong one."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from checkpoints import quiet_transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, PreTrainedTokenizerFast

VOCAB_SIZE = 160
CONTEXT = 48
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
TEXTS = (
    "Seventeen small ships sailed past the harbour before dawn, carrying salt and wool.",
    "The router scores every expert; only the best are asked, so most of the weights rest.",
    "A mixture of experts sends every token to a few of its experts, and adds what they answer.",
)

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
# Positions begin behind the padding id, which is 1 here.
_SHIFTED = {"max_position_embeddings": CONTEXT + 2, "pad_token_id": 1, "type_vocab_size": 1}
# transformers' own names of the families, and what they need besides.
FAMILIES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Albert": ("albert", {"embedding_size": 16}),
    "Bert": ("bert", {}),
    "Camembert": ("camembert", _SHIFTED),
    "DistilBert": ("distilbert", {"dim": 32, "hidden_dim": 64, "n_heads": 4, "n_layers": 2}),
    "Electra": ("electra", {"embedding_size": 16}),
    "EuroBert": ("eurobert", {"num_key_value_heads": 4, "mask_token_id": 1}),
    "Gte": ("gte", {}),
    "ModernBert": ("modernbert", {"local_attention": 8, "cls_token_id": 2, "sep_token_id": 3}),
    "MPNet": ("mpnet", {"max_position_embeddings": CONTEXT + 2, "pad_token_id": 1}),
    "NomicBert": ("nomic_bert", {}),
    "Roberta": ("roberta", _SHIFTED),
    "XLMRoberta": ("xlm-roberta", _SHIFTED),
}


def make_encoder_checkpoint(
    path: Path,
    family: str = "Bert",
    head: str = "Model",
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **overrides: Any,
) -> Path:
    """Write a random checkpoint with a tokenizer to `path`, and return it.

    Args:
        head: Model, ForMaskedLM, or ForSequenceClassification, then with one label.
        overrides: fields of the family's config.
    """
    quiet_transformers()
    model_type, further = FAMILIES[family]
    fields = {**_COMMON, **further, **overrides}
    if model_type == "distilbert":
        fields = {name: value for name, value in fields.items() if name not in _DISTILBERT_LACKS}
    if head == "ForSequenceClassification":
        fields.setdefault("num_labels", 1)
    config = AutoConfig.for_model(model_type, **fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, family + head)(config)
        _randomise(model)
    model.to(dtype).save_pretrained(path)
    make_pair_tokenizer(is_typed=fields.get("type_vocab_size", 2) > 1).save_pretrained(path)
    return path


_DISTILBERT_LACKS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
)


def add_modules(path: Path, *parts: tuple[str, dict[str, Any]]) -> Path:
    """Write sentence-transformers' files beside a checkpoint: what follows the encoder."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    ]
    for number, (kind, config) in enumerate(parts, start=1):
        folder = f"{number}_{kind}"
        (path / folder).mkdir(exist_ok=True)
        (path / folder / "config.json").write_text(json.dumps(config))
        kind_name = f"sentence_transformers.models.{kind}"
        modules.append({"idx": number, "name": str(number), "path": folder, "type": kind_name})
    (path / "modules.json").write_text(json.dumps(modules))
    return path


def make_pair_tokenizer(is_typed: bool = True) -> PreTrainedTokenizerFast:
    """Words in the manner of BERT, with its special tokens around a text and a pair of them."""
    tokenizer = Tokenizer.from_str(_word_pieces())
    second = 1 if is_typed else 0
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A [SEP] $B:{second} [SEP]:{second}",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


@cache
def _word_pieces() -> str:
    """Trained once: the trainer does not number equally frequent pieces alike each time."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return str(tokenizer.to_str())


@torch.no_grad()
def _randomise(model: torch.nn.Module) -> None:
    """Weights with which every token sways the vectors of all others."""
    for name, weight in model.named_parameters():
        if "norm" in name.lower() and name.endswith("weight"):
            weight.uniform_(0.5, 1.5)
        elif weight.dim() < 2:
            weight.normal_(std=0.3)
        elif "embedding" in name:
            weight.normal_(std=0.5)
        else:
            weight.normal_(std=1.5 * weight.shape[-1] ** -0.5)
