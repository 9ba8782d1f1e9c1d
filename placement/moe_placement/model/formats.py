"""Weight formats: bits of an element with its share of the scales, and which parts get them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


class FormatError(ValueError):
    """A weight format that is not known."""


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How one matrix is kept.

    Attributes:
        kind: the format as devices list it, whatever its scales.
        bits: of an element.
        scale_bits: of a scale; 0 where there is none.
        group: elements that share a scale.
    """

    kind: str
    bits: int
    scale_bits: int = 0
    group: int = 1

    @property
    def bits_per_element(self) -> float:
        return self.bits + self.scale_bits / self.group


# A scale for each output channel is one for each row of a matrix, taken as so many elements.
_CHANNEL = 4096
_NVFP4 = WeightFormat("fp4", 4, 8, 16)

# fp8: float32 scales of 128 x 128 blocks (DeepSeek-V3, arXiv 2412.19437, section 3.3). int4:
# bfloat16 scales of groups, as GPTQ and AWQ checkpoints (128) and Kimi-K2.5 (32) have them. fp4
# is nvfp4, with float8 scales; mxfp4 is of the OCP Microscaling specification 1.0, section 5.2.
FORMATS: Mapping[str, WeightFormat] = MappingProxyType(
    {
        "float32": WeightFormat("float32", 32),
        "bfloat16": WeightFormat("bfloat16", 16),
        "float16": WeightFormat("float16", 16),
        "fp8": WeightFormat("fp8", 8, 32, 128 * 128),
        "fp8_channel": WeightFormat("fp8", 8, 32, _CHANNEL),
        "int8": WeightFormat("int8", 8, 32, _CHANNEL),
        "int4": WeightFormat("int4", 4, 16, 128),
        "int4_group32": WeightFormat("int4", 4, 16, 32),
        "fp4": _NVFP4,
        "nvfp4": _NVFP4,
        "mxfp4": WeightFormat("fp4", 4, 8, 32),
    }
)
# Routers compute in float32, whatever the format; a rounded one would choose other experts.
_GATE_FORMAT = "float32"
_PLAIN_PARTS = ("embedding", "head", "norms")
_MATRIX_PARTS = ("attention", "dense_mlp", "shared_experts")


def find_format(name: str) -> WeightFormat:
    """The format of a name; FormatError lists those that there are."""
    if name not in FORMATS:
        raise FormatError(f"weight format {name!r} is not known; use {', '.join(FORMATS)}")
    return FORMATS[name]


def format_bytes(num_elements: int, name: str) -> int:
    """Bytes of so many elements with their scales, rounded up."""
    kept = find_format(name)
    scales = -(-num_elements * kept.scale_bits // kept.group)
    return -(-(num_elements * kept.bits + scales) // 8)


def matrix_bytes(num_elements: int, num_rows: int, name: str) -> int:
    """Bytes of matrices with so many elements and output rows, each row with a scale of its own
    where the format has one for each channel."""
    kept = find_format(name)
    if kept.group != _CHANNEL:
        return format_bytes(num_elements, name)
    return -(-num_elements * kept.bits // 8) + num_rows * kept.scale_bits // 8


def attention_format(name: str, *, has_experts: bool) -> str:
    """The format of attention in a checkpoint whose experts have the format `name`.

    With 4-bit experts attention stays bfloat16, as in gpt-oss (mxfp4), Kimi-K2.5 (int4) and
    NVIDIA's nvfp4 checkpoints of GLM-5, MiniMax-M2.5 and Qwen3.5; a dense model is 4-bit
    throughout, as are those of Llama-3.1 and Qwen3.
    """
    return "bfloat16" if has_experts and find_format(name).bits < 8 else name


def part_formats(name: str, *, has_experts: bool, plain_format: str = "bfloat16") -> dict[str, str]:
    """The format of each part of `ModelSpec.parameters` in a checkpoint of a format.

    Experts have it always. Attention, dense layers and shared experts have that of
    `attention_format`. Embedding, head and norms stay in `plain_format` when the format has
    less bits than that; gates are float32.
    """
    plain = plain_format if find_format(name).bits < find_format(plain_format).bits else name
    matrices = attention_format(name, has_experts=has_experts)
    return (
        dict.fromkeys(_PLAIN_PARTS, plain)
        | dict.fromkeys(_MATRIX_PARTS, matrices)
        | {"gate": _GATE_FORMAT, "experts": name}
    )
