"""How fast each pair of a head's numbers turns with position, under each kind of scaling."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from moe_serve.errors import UnsupportedError

KINDS = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True, slots=True)
class RotaryShape:
    """Rotary embedding (arXiv:2104.09864) as a checkpoint describes it.

    Attributes:
        width: how many of a head's numbers turn, two by two.
        kind: one of KINDS.
        scaling: the kind's own parameters, as transformers names them.
        interleaved: a pair is numbers 2i and 2i + 1, rather than i and i + width / 2.
        context_length: positions 0 to context_length - 1 are asked for.
    """

    width: int
    theta: float
    context_length: int
    kind: str = "default"
    scaling: Mapping[str, Any] = field(default_factory=dict)
    interleaved: bool = False


def frequencies(shape: RotaryShape) -> tuple[torch.Tensor, float]:
    """Radians per position of each pair, float32 [width / 2], and what scales cos and sin.

    Raises:
        UnsupportedError: a kind of scaling that does not exist here.
    """
    exponents = torch.arange(0, shape.width, 2, dtype=torch.float32) / shape.width
    plain = 1.0 / shape.theta**exponents
    match shape.kind:
        # Dynamic scaling only acts beyond the context length, where no request gets.
        case "default" | "dynamic":
            return plain, 1.0
        case "linear":
            return plain / float(shape.scaling["factor"]), 1.0
        case "llama3":
            return _llama3(plain, shape), 1.0
        case "yarn":
            return _yarn(plain, shape), _yarn_attention_factor(shape.scaling)
    known = ", ".join(KINDS)
    raise UnsupportedError(f"rotary scaling {shape.kind!r} is not supported; supported: {known}")


def yarn_softmax_factor(shape: RotaryShape) -> float:
    """What DeepSeek's YaRN multiplies the softmax scale by: mscale squared over all dimensions."""
    mscale = shape.scaling.get("mscale_all_dim") or 0.0
    if shape.kind == "default" or not mscale:
        return 1.0
    return _mscale(shape.scaling["factor"], mscale) ** 2


def _llama3(plain: torch.Tensor, shape: RotaryShape) -> torch.Tensor:
    """Slow pairs are slowed by `factor`, fast ones kept, and those between blended (Llama 3.1)."""
    scaling = shape.scaling
    original: int = scaling["original_max_position_embeddings"]
    turns = plain * original / (2 * math.pi)
    low: float = scaling["low_freq_factor"]
    high: float = scaling["high_freq_factor"]
    factor: float = scaling["factor"]
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * plain + (1 - kept) * plain / factor


def _yarn(plain: torch.Tensor, shape: RotaryShape) -> torch.Tensor:
    """Pairs that turn often within the original context are kept, the rest slowed
    (arXiv:2309.00071)."""
    scaling = shape.scaling
    factor: float = scaling["factor"]
    original: int = scaling["original_max_position_embeddings"]

    def pair_that_turns(times: float) -> float:
        return shape.width * math.log(original / (times * 2 * math.pi)) / 2 / math.log(shape.theta)

    first = pair_that_turns(scaling.get("beta_fast") or 32)
    last = pair_that_turns(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, shape.width - 1)
    steps = torch.arange(shape.width // 2, dtype=torch.float32)
    slowed = ((steps - first) / max(last - first, 1e-3)).clamp(0, 1)
    return plain / factor * slowed + plain * (1 - slowed)


def _yarn_attention_factor(scaling: Mapping[str, Any]) -> float:
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])
    factor, mscale = scaling["factor"], scaling.get("mscale")
    if mscale and scaling.get("mscale_all_dim"):
        return _mscale(factor, mscale) / _mscale(factor, scaling["mscale_all_dim"])
    return _mscale(factor, 1.0)


def _mscale(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0
