"""From what schedulers form to what a StepTimer prices."""

from collections.abc import Iterable
from dataclasses import replace
from operator import ge

from moe_placement.cost.step_shape import StepShape
from moe_placement.simulator.scheduler import Step


def shape_of(steps: Iterable[Step], decode_tokens: int = 1) -> StepShape:
    """The shape of one step of several ranks together."""
    num_decoding = decode_context = num_prefill = 0
    prefill_context = 0.0
    for step in steps:
        num_decoding += step.num_decoding
        decode_context += step.decode_context
        for chunk in step.chunks:
            num_prefill += chunk.num_tokens
            # Each token attends to those before it and to itself.
            prefill_context += chunk.num_tokens * (chunk.context + (chunk.num_tokens + 1) / 2)
    return StepShape(
        prefill_tokens=num_prefill,
        prefill_context=prefill_context / num_prefill if num_prefill else 0.0,
        decode_sequences=num_decoding,
        decode_context=decode_context / num_decoding if num_decoding else 0.0,
        decode_tokens_per_sequence=decode_tokens,
    )


def scaled(shape: StepShape, factor: float) -> StepShape:
    """So many times the tokens and sequences, each like those."""
    return replace(
        shape,
        prefill_tokens=shape.prefill_tokens * factor,
        decode_sequences=shape.decode_sequences * factor,
    )


def heaviest(shapes: Iterable[StepShape]) -> list[StepShape]:
    """Those that no other one equals or exceeds in everything.

    Of a timer that grows with tokens and contexts, the largest value is among theirs.
    """
    found: list[tuple[float, ...]] = []
    kept: list[StepShape] = []
    for load, shape in sorted(((_load(shape), shape) for shape in shapes), key=_by_load):
        if not any(all(map(ge, other, load)) for other in found):
            found.append(load)
            kept.append(shape)
    return kept


def _load(shape: StepShape) -> tuple[float, ...]:
    prefill, decoding = shape.prefill_tokens, shape.decode_sequences
    return (
        prefill,
        prefill * shape.prefill_context,
        decoding,
        decoding * shape.decode_context,
    )


def _by_load(entry: tuple[tuple[float, ...], StepShape]) -> tuple[float, ...]:
    return tuple(-amount for amount in entry[0])
