"""What an encoder needs of a device's memory, from its files alone; without torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_serve.encoders.families import EncoderFamily, encoder_task
from moe_serve.encoders.shape import EncoderShape, read_shape
from moe_serve.errors import CheckpointError
from moe_serve.weights.config_files import read_config
from moe_serve.weights.files import find_tensors
from moe_serve.weights.headers import StoredTensor

_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
# What the checkpoint of an embedding model may hold beside its encoder, at the front of a name.
_HEADS = {
    "classifier",
    "cls",
    "decoder",
    "generator_lm_head",
    "generator_predictions",
    "head",
    "lm_head",
    "pooler",
    "predictions",
    "vocab_layer_norm",
    "vocab_projector",
    "vocab_transform",
}
# Ids, positions, types and masks of a token, and positions of the module's own.
_INDEX_BYTES = 64


@dataclass(frozen=True, slots=True)
class Space:
    """What is alive at once at most, while transformers' module computes a layer; measured.

    Attributes:
        attention_widths: numbers of the model's dtype for each token, in widths, in attention.
        inner_widths: likewise in feed-forward, in inner widths, besides four widths.
        mask_bytes: for each pair of a token and one that it may attend to.
        score_copies: matrices of attention scores; none where attention goes block by block.
    """

    attention_widths: int = 10
    inner_widths: int = 2
    mask_bytes: int = 6
    score_copies: float = 0.0

    def bytes_per_token(self, shape: EncoderShape, item_bytes: int) -> int:
        attention = self.attention_widths * shape.width
        feed_forward = 4 * shape.width + self.inner_widths * shape.inner_width
        scores = self.score_copies * shape.num_heads * item_bytes + self.mask_bytes
        widths = item_bytes * max(attention, feed_forward)
        return int(_INDEX_BYTES + widths + scores * shape.context_length)


_ROTARY = Space(attention_widths=12, inner_widths=4)
_SPACES: Mapping[EncoderFamily, Space] = {
    "Albert": Space(inner_widths=4),
    "EuroBert": _ROTARY,
    "Gte": _ROTARY,
    "ModernBert": Space(attention_widths=18, inner_widths=5, mask_bytes=16),
    "MPNet": Space(mask_bytes=32, score_copies=3.5),
    "NomicBert": _ROTARY,
}


def encoder_bytes(
    path: Path | str, dtype: str, max_tokens_per_step: int, max_context: int = 0
) -> tuple[int, int]:
    """Bytes of the weights, and of the working space of the largest step.

    The largest step has `max_tokens_per_step` tokens, or one input as long as the model takes.

    Args:
        dtype: of weights and activations: float32, bfloat16 or float16.
        max_context: the most tokens of one input; 0 is the model's own limit.

    Raises:
        CheckpointError: a file or a field is missing or damaged.
        UnsupportedError: it is no encoder that is served.
        ConfigError: `max_context` is beyond the model's own limit.
    """
    path, item_bytes = Path(path), _DTYPE_BYTES[dtype]
    task, shape = encoder_task(read_config(path)), read_shape(path, max_context)
    tensors = find_tensors(path)
    _check_layers(path, shape, len(tensors))
    weights = sum(
        _loaded_bytes(tensor, item_bytes)
        for name, tensor in tensors.items()
        if task == "rerank" or _HEADS.isdisjoint(name.split(".")[:2])
    )
    space = _SPACES.get(shape.family, Space())
    num_tokens = max(max_tokens_per_step, shape.context_length)
    # Libraries pack the weight that they multiply by.
    packed = item_bytes * shape.width * shape.inner_width
    return weights, num_tokens * space.bytes_per_token(shape, item_bytes) + packed


def _check_layers(path: Path, shape: EncoderShape, num_tensors: int) -> None:
    """transformers would make up layers that are not there, one by one, before it says so."""
    # Of ALBERT all layers share their weights.
    if shape.family != "Albert" and shape.num_layers > num_tensors:
        raise CheckpointError(
            f"checkpoint {path} has {num_tensors} tensors, too few for the {shape.num_layers} "
            "layers of its config.json; copy both again"
        )


def _loaded_bytes(tensor: StoredTensor, item_bytes: int) -> int:
    return math.prod(tensor.shape) * item_bytes if tensor.dtype in _FLOATS else tensor.num_bytes
