"""The rotary settings of a config.json, as published or as transformers 5 writes them."""

from typing import Any

from moe_serve.errors import CheckpointError, UnsupportedError
from moe_serve.layers.rotary_frequencies import KINDS, RotaryShape
from moe_serve.models.settings import Settings

_NEEDED = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}
_POSITIVE = (
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "beta_fast",
    "beta_slow",
    "attention_factor",
)


def rotary_shape(
    settings: Settings,
    head_width: int,
    *,
    theta: float = 10000.0,
    partial: float = 1.0,
    interleaved: bool = False,
) -> RotaryShape:
    """Read `rope_scaling` with `rope_theta` (published), or `rope_parameters` (transformers 5).

    Args:
        theta, partial: the family's own, where the config names none.

    Raises:
        UnsupportedError: a kind of scaling that does not exist here.
        CheckpointError: a kind that lacks one of its parameters, or one that is no number.
    """
    scaling = settings.table("rope_scaling") or settings.table("rope_parameters")
    kind = str(scaling.get("rope_type", scaling.get("type", "default")))
    if any(isinstance(value, dict) for value in scaling.values()):
        kind = "per layer type"
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise UnsupportedError(
            f"{settings.architecture} with rotary scaling {kind} is not supported; "
            f"supported: {known}"
        )
    numbers = Settings(scaling)
    partial = settings.positive("partial_rotary_factor", default=partial)
    theta = settings.positive("rope_theta", default=theta)
    return RotaryShape(
        width=int(head_width * numbers.positive("partial_rotary_factor", default=partial)),
        theta=numbers.positive("rope_theta", default=theta),
        context_length=settings.integer("max_position_embeddings"),
        kind=kind,
        scaling=_complete(scaling, kind, settings),
        interleaved=interleaved,
    )


def _complete(scaling: dict[str, Any], kind: str, settings: Settings) -> dict[str, Any]:
    """With what transformers fills in where the config leaves it out."""
    length = settings.integer("max_position_embeddings")
    if kind in ("llama3", "yarn"):
        original = scaling.get("original_max_position_embeddings") or length
        original = settings.integer("original_max_position_embeddings", default=original)
        scaling["original_max_position_embeddings"] = original
        if kind == "yarn" and scaling.get("factor") is None:
            scaling["factor"] = length / original
    for name in _NEEDED.get(kind, ()):
        if scaling.get(name) is None:
            raise CheckpointError(f"config.json: rotary scaling {kind} has no {name}")
    numbers = Settings(scaling)
    for name in filter(numbers.has, _POSITIVE):
        numbers.positive(name)
    for name in filter(numbers.has, ("mscale", "mscale_all_dim")):
        numbers.number(name)
    return scaling
