"""The kernel table: which implementation of each op a rank runs, looked up once at start."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from moe_kernels.ops import (
    Attention,
    Experts,
    HeadLinear,
    LatentAttention,
    Linear,
    Ops,
    RmsNorm,
    SwiGlu,
)

WEIGHT_FORMATS = ("float32", "bfloat16", "float16")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One implementation of one op.

    Attributes:
        op: the field of `Ops` that it fills.
        device_kind: cpu, cuda, ...; None runs on any.
        weight_format: None takes any.
        deterministic: a row's result depends on that row alone, bit for bit.
        priority: the highest supported one is taken; the reference has 0.
        supports: whether this machine and this torch can run it.
        build: makes the op; imports what it needs, so that a table costs nothing.
    """

    op: str
    device_kind: str | None
    weight_format: str | None
    deterministic: bool
    name: str
    priority: int
    supports: Callable[[], bool]
    build: Callable[[], Any]

    def fits(self, op: str, device_kind: str, weight_format: str) -> bool:
        return (
            self.op == op
            and self.device_kind in (None, device_kind)
            and self.weight_format in (None, weight_format)
        )


def kernels() -> tuple[Kernel, ...]:
    """Every kernel there is."""
    return (*_reference_kernels(), *_deterministic_kernels(), *_cpu_kernels())


def select_ops(
    device_kind: str, weight_format: str, deterministic: bool = False, reference: bool = False
) -> Ops:
    """The best supported kernel of each op.

    Args:
        deterministic: only kernels whose rows do not depend on the batch around them.
        reference: only the oracle.

    Raises:
        ValueError: a weight format, or a combination, that no kernel serves.
    """
    if weight_format not in WEIGHT_FORMATS:
        known = ", ".join(WEIGHT_FORMATS)
        raise ValueError(f"weight format {weight_format!r} does not exist; choose one of {known}")

    def build(op: str) -> Any:
        fitting = (
            kernel
            for kernel in kernels()
            if kernel.fits(op, device_kind, weight_format)
            and (kernel.deterministic or not deterministic)
            and (kernel.name == "reference" or not reference)
        )
        return _best(op, device_kind, weight_format, fitting).build()

    return Ops(
        linear=cast(Linear, build("linear")),
        head_linear=cast(HeadLinear, build("head_linear")),
        swiglu=cast(SwiGlu, build("swiglu")),
        experts=cast(Experts, build("experts")),
        rms_norm=cast(RmsNorm, build("rms_norm")),
        attention=cast(Attention, build("attention")),
        latent_attention=cast(LatentAttention, build("latent_attention")),
    )


def _best(op: str, device_kind: str, weight_format: str, fitting: Iterator[Kernel]) -> Kernel:
    best = max(
        (kernel for kernel in fitting if kernel.supports()),
        key=lambda kernel: kernel.priority,
        default=None,
    )
    if best is None:
        raise ValueError(f"no {op} kernel for {weight_format} weights on {device_kind} as asked")
    _log.info("%s on %s, %s weights: %s", op, device_kind, weight_format, best.name)
    return best


def _always() -> bool:
    return True


def _reference_kernels() -> Iterator[Kernel]:
    from moe_kernels import head_linear, reference, reference_attention, swiglu

    for op, build in (
        ("linear", reference.ReferenceLinear),
        ("head_linear", head_linear.ReferenceHeadLinear),
        ("swiglu", swiglu.ReferenceSwiGlu),
        ("experts", reference.ReferenceExperts),
        ("rms_norm", reference.ReferenceRmsNorm),
        ("attention", reference_attention.ReferenceAttention),
        ("latent_attention", reference_attention.ReferenceLatentAttention),
    ):
        yield Kernel(op, None, None, False, "reference", 0, _always, build)


def _deterministic_kernels() -> Iterator[Kernel]:
    from moe_kernels import deterministic, deterministic_attention, head_linear, swiglu

    for op, build in (
        ("linear", deterministic.TiledLinear),
        ("head_linear", head_linear.TiledHeadLinear),
        ("swiglu", swiglu.StableSwiGlu),
        ("experts", deterministic.TiledExperts),
        ("rms_norm", deterministic.TiledRmsNorm),
        ("attention", deterministic_attention.TiledAttention),
        ("latent_attention", deterministic_attention.TiledLatentAttention),
    ):
        yield Kernel(op, None, None, True, "tiled", -1, _always, build)


def _cpu_kernels() -> Iterator[Kernel]:
    from moe_kernels.cpu import attention, experts, linear, products

    full, brain = (products.OneDnnProduct(quick_alone=alone) for alone in (False, True))
    half = products.FbgemmHalfProduct()
    for weight_format, name, product, supports in (
        ("float32", "onednn", full, products.onednn_has_float32),
        ("bfloat16", "onednn", brain, products.onednn_has_bfloat16),
        ("float16", "fbgemm", half, products.fbgemm_has_float16),
    ):
        for op, build in (("linear", linear.PackedLinear), ("experts", experts.PackedExperts)):
            make = partial(build, product)
            yield Kernel(op, "cpu", weight_format, False, name, 1, supports, make)
    for op, attend in (
        ("attention", attention.BlockedAttention),
        ("latent_attention", attention.BlockedLatentAttention),
    ):
        yield Kernel(op, "cpu", None, False, "blocked", 1, _always, attend)
