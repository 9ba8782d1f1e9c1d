"""The kernel table: which implementation of each op a rank runs, looked up once at start."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch

from moe_kernels.formats import FLOAT_FORMATS, check_served
from moe_kernels.narrowed import NarrowedExperts, NarrowedLinear
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
    device_kind: str,
    weight_format: str,
    deterministic: bool = False,
    reference: bool = False,
    dtype: str = "",
) -> Ops:
    """The best supported kernel of each op.

    Args:
        weight_format: of linear layers and experts, which are packed from weights in `dtype`.
        deterministic: only kernels whose rows do not depend on the batch around them.
        reference: only the oracle.
        dtype: of activations and of all other weights; empty is the weight format, bfloat16
            where that is not one of floats.

    Raises:
        ValueError: a weight format, or a combination, that no kernel serves.
    """
    dtype = dtype or (weight_format if weight_format in FLOAT_FORMATS else "bfloat16")
    check_served(weight_format, dtype)

    def build(op: str, key: str = dtype) -> Any:
        fitting = (
            kernel
            for kernel in kernels()
            if kernel.fits(op, device_kind, key)
            and (kernel.deterministic or not deterministic)
            and (kernel.name == "reference" or not reference)
        )
        return _best(op, device_kind, key, fitting).build()

    linear = cast(Linear, build("linear", weight_format))
    experts = cast(Experts, build("experts", weight_format))
    if weight_format != dtype and weight_format in FLOAT_FORMATS:
        narrow = getattr(torch, weight_format)
        linear, experts = NarrowedLinear(linear, narrow), NarrowedExperts(experts, narrow)
    return Ops(
        linear=linear,
        plain_linear=cast(Linear, build("linear")),
        head_linear=cast(HeadLinear, build("head_linear")),
        swiglu=cast(SwiGlu, build("swiglu")),
        experts=experts,
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

    yield from _with_weights(
        "reference", False, 0, reference.ReferenceLinear, reference.ReferenceExperts
    )
    for op, build in (
        ("head_linear", head_linear.ReferenceHeadLinear),
        ("swiglu", swiglu.ReferenceSwiGlu),
        ("rms_norm", reference.ReferenceRmsNorm),
        ("attention", reference_attention.ReferenceAttention),
        ("latent_attention", reference_attention.ReferenceLatentAttention),
    ):
        yield Kernel(op, None, None, False, "reference", 0, _always, build)


def _deterministic_kernels() -> Iterator[Kernel]:
    from moe_kernels import deterministic, deterministic_attention, head_linear, swiglu

    yield from _with_weights(
        "tiled", True, -1, deterministic.TiledLinear, deterministic.TiledExperts
    )
    for op, build in (
        ("head_linear", head_linear.TiledHeadLinear),
        ("swiglu", swiglu.StableSwiGlu),
        ("rms_norm", deterministic.TiledRmsNorm),
        ("attention", deterministic_attention.TiledAttention),
        ("latent_attention", deterministic_attention.TiledLatentAttention),
    ):
        yield Kernel(op, None, None, True, "tiled", -1, _always, build)


def _with_weights(
    name: str,
    deterministic: bool,
    priority: int,
    linear: Callable[[], Linear],
    experts: Callable[[], Experts],
) -> Iterator[Kernel]:
    """Ops of any device over float weights, and over int8 ones that are multiplied out."""
    from moe_kernels.dequantised import DequantisedExperts, DequantisedLinear

    builds: dict[str, dict[str, Callable[[], Any]]] = {
        weight_format: {"linear": linear, "experts": experts} for weight_format in FLOAT_FORMATS
    }
    builds["int8"] = {
        "linear": lambda: DequantisedLinear(linear()),
        "experts": lambda: DequantisedExperts(experts()),
    }
    for weight_format, ops in builds.items():
        for op, build in ops.items():
            yield Kernel(op, None, weight_format, deterministic, name, priority, _always, build)


def _cpu_kernels() -> Iterator[Kernel]:
    from moe_kernels.cpu import attention, experts, int8, linear, products

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
    for op, whole in (("linear", int8.Int8Linear), ("experts", int8.Int8Experts)):
        yield Kernel(op, "cpu", "int8", True, "onednn", 1, int8.has_vnni, whole)
    for op, attend in (
        ("attention", attention.BlockedAttention),
        ("latent_attention", attention.BlockedLatentAttention),
    ):
        yield Kernel(op, "cpu", None, False, "blocked", 1, _always, attend)
