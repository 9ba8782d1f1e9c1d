"""What must be known of an encoder before its weights are there: from its files, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from moe_serve.encoders.families import EncoderFamily, encoder_family
from moe_serve.errors import CheckpointError, ConfigError
from moe_serve.weights.config_files import read_config, read_json

# Positions are numbered from behind the padding token's id.
_OFFSET_BY_PADDING: Mapping[EncoderFamily, int] = {
    "Camembert": 1,
    "MPNet": 1,
    "Roberta": 1,
    "XLMRoberta": 1,
}


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """Attributes:
    width: of a token's vector.
    inner_width: of the feed-forward layers.
    context_length: the most tokens of one input.
    """

    family: EncoderFamily
    width: int
    inner_width: int
    num_heads: int
    num_layers: int
    context_length: int
    vocab_size: int

    def work(self, num_inputs: int, length: int) -> float:
        """Multiplications of a step, about: what its seconds are in proportion to.

        Args:
            length: of the longest input, to which the others are padded.
        """
        weights = 4 * self.width**2 + 3 * self.width * self.inner_width
        return float(num_inputs * length * self.num_layers * (weights + 2 * self.width * length))


def read_shape(path: Path, max_context: int = 0) -> EncoderShape:
    """The shape of the encoder in a checkpoint directory.

    Args:
        max_context: the most tokens of one input; 0 is the model's own limit.

    Raises:
        ConfigError: `max_context` is beyond the model's own limit.
        CheckpointError: a file or a field is missing or of a wrong type.
        UnsupportedError: it is no encoder that is served.
    """
    config = read_config(path)
    family = encoder_family(config)
    width = _count(config, "hidden_size", "dim", "n_embd")
    positions = _count(config, "max_position_embeddings", "n_positions")
    if family in _OFFSET_BY_PADDING:
        positions -= 1 + int(config.get("pad_token_id", _OFFSET_BY_PADDING[family]))
    return EncoderShape(
        family=family,
        width=width,
        inner_width=_count(config, "intermediate_size", "hidden_dim", "n_inner"),
        num_heads=_count(config, "num_attention_heads", "n_heads", "n_head"),
        num_layers=_count(config, "num_hidden_layers", "n_layers", "n_layer"),
        context_length=_context_length(int(min(positions, _longest_trained(path))), max_context),
        vocab_size=_count(config, "vocab_size"),
    )


def _context_length(own: int, wanted: int) -> int:
    if wanted > own:
        raise ConfigError(
            f"model.max_context: {wanted} tokens are more than the {own} that this encoder takes; "
            "lower it"
        )
    return wanted or own


def _longest_trained(path: Path) -> float:
    """What the checkpoint's own files cut inputs to, as sentence-transformers reads them."""
    for name, field in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        value = read_json(path / name).get(field) if (path / name).is_file() else None
        if value is not None:
            return int(value)
    return inf


def _count(config: Mapping[str, Any], *names: str) -> int:
    """A field by the first of its names that is there."""
    value = next((config[name] for name in names if config.get(name) is not None), None)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(
            f"config.json: {names[0]} is {value!r}, expected a count; "
            "copy the file again from where the model came from"
        )
    return value
