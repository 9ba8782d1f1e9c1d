"""The workload that a command asks about: figures as given, or those of a trace in the mean."""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moe_placement.cli.parser import UsageError
from moe_placement.serving.workload import Workload
from moe_placement.simulator.scheduler import SimulatedRequest
from moe_placement.simulator.traces import read_trace

_LIMITS: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    ("rate", "above 0", lambda value: value > 0),
    ("concurrency", "at least 1", lambda value: value >= 1),
    ("prompt_tokens", "at least 1", lambda value: value >= 1),
    ("output_tokens", "at least 1", lambda value: value >= 1),
    ("prompt_cv", "at least 0", lambda value: value >= 0),
    ("output_cv", "at least 0", lambda value: value >= 0),
    ("cached_share", "at least 0 and below 1", lambda value: 0 <= value < 1),
    ("tokens_per_step", "at least 1", lambda value: value >= 1),
)


def read_workload(options: argparse.Namespace) -> Workload:
    """A trace's figures, with those laid over it that were given beside it.

    Raises:
        UsageError: figures that are missing, out of range, or exclude each other.
        TraceError: what is wrong with the trace.
    """
    given: dict[str, Any] = {
        name: getattr(options, name) for name, _, _ in _LIMITS if getattr(options, name) is not None
    }
    for name, expected, accepts in _LIMITS:
        if name in given and not (math.isfinite(given[name]) and accepts(given[name])):
            raise UsageError(f"{_option(name)} is {given[name]:g}; it must be {expected}")
    if "rate" in given and "concurrency" in given:
        raise UsageError("--rate and --concurrency: a stream or clients in a loop; give one")
    if options.trace:
        mean = workload_of(read_trace(options.trace))
        return replace(mean, **({"rate": 0.0} if "concurrency" in given else {}) | given)
    for name in ("prompt_tokens", "output_tokens"):
        if name not in given:
            raise UsageError(f"{_option(name)} is missing; give it, or --trace FILE")
    return Workload(**given)


def workload_of(requests: Sequence[SimulatedRequest]) -> Workload:
    """The mean of a trace; the cached share is that of a cache which never forgets."""
    prompts = np.array([request.prompt_tokens for request in requests], float)
    outputs = np.array([request.output_tokens for request in requests], float)
    seconds = max(request.arrival for request in requests)
    return Workload(
        prompt_tokens=float(prompts.mean()),
        output_tokens=float(outputs.mean()),
        rate=(len(requests) - 1) / seconds if seconds else 0.0,
        prompt_cv=float(prompts.std() / prompts.mean()),
        output_cv=float(outputs.std() / outputs.mean()),
        cached_share=_repeated(requests) / float(prompts.sum()),
    )


def _repeated(requests: Sequence[SimulatedRequest]) -> int:
    """Prompt tokens in whole blocks that an earlier request had; the last token never is."""
    seen: set[int] = set()
    total = 0
    for request in requests:
        known = next(
            (place for place, block in enumerate(request.blocks) if block not in seen),
            len(request.blocks),
        )
        total += min(known * request.block_tokens, request.prompt_tokens - 1)
        seen.update(request.blocks)
    return total


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
