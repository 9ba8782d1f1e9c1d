"""Grouped-query attention over the paged cache (arXiv:2305.13245).

Shape legend: T tokens, D width, H query heads, G key-value heads, d head width, P pages,
S page size.
"""

from dataclasses import dataclass

import torch
from moe_comm.ordered_sum import ordered_sum

from moe_serve.layers.cache_write import write_finite
from moe_serve.layers.context import ForwardContext, GroupedCache, GroupedCacheSpec
from moe_serve.layers.linear import LinearLayer
from moe_serve.layers.norm import RmsNormLayer
from moe_serve.layers.rotary import Rotation


@dataclass(frozen=True, slots=True)
class HeadNorm:
    """Normalises each query and key head on its own, in one pass over both.

    Attributes:
        norm: without a scale of its own.
        scale_Hd: query heads' scale, then key heads'.
    """

    norm: RmsNormLayer
    scale_Hd: torch.Tensor

    def __call__(self, heads_THd: torch.Tensor) -> torch.Tensor:
        return self.norm(heads_THd) * self.scale_Hd


@dataclass(frozen=True, slots=True)
class GroupedAttention:
    """Attributes:
    layer: the model's layer, which picks the cache.
    num_heads, num_kv_heads: of this rank.
    qkv: all queries' heads, then keys', then values'.
    head_norm: None leaves queries and keys as they are.
    """

    layer: int
    num_heads: int
    num_kv_heads: int
    head_width: int
    qkv: LinearLayer
    output: LinearLayer
    head_norm: HeadNorm | None = None

    @property
    def cache_spec(self) -> GroupedCacheSpec:
        return GroupedCacheSpec(self.num_kv_heads, self.head_width)

    def __call__(
        self, x_TD: torch.Tensor, rotation: Rotation, context: ForwardContext
    ) -> torch.Tensor:
        num_all_heads = self.num_heads + 2 * self.num_kv_heads
        heads_THd = self.qkv(x_TD).view(-1, num_all_heads, self.head_width)
        v_TGd = heads_THd[:, -self.num_kv_heads :]
        qk_THd = heads_THd[:, : -self.num_kv_heads]
        if self.head_norm is not None:
            qk_THd = self.head_norm(qk_THd)
        qk_THd = rotation(qk_THd)
        cache = self._write(qk_THd[:, self.num_heads :], v_TGd, context)
        o_THd = context.ops.attention(
            qk_THd[:, : self.num_heads],
            cache.keys_PSHd,
            cache.values_PSHv,
            context.paged,
            self.head_width**-0.5,
        )
        return ordered_sum(context.attention, self.output(o_THd.flatten(1)))

    def _write(
        self, k_TGd: torch.Tensor, v_TGd: torch.Tensor, context: ForwardContext
    ) -> GroupedCache:
        cache = context.caches[self.layer]
        assert isinstance(cache, GroupedCache)
        write_finite(cache.keys_PSHd, context.paged.slot_T, k_TGd)
        write_finite(cache.values_PSHv, context.paged.slot_T, v_TGd)
        return cache
