"""Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434) with absorbed weights.

The cache holds one latent and one rotary key per token, for all heads. Instead of expanding them
to keys and values, each query is taken into the latent's space and each answer out of it.

Shape legend: T tokens, D width, H heads, n query width without rotary, r rotary width,
l latent width, c = l + r, v value width, q width of the compressed query.
"""

from dataclasses import dataclass

import torch
from moe_comm.ordered_sum import ordered_sum
from moe_kernels.ops import HeadLinear, Packed

from moe_serve.layers.cache_write import write_finite
from moe_serve.layers.context import ForwardContext, LatentCache, LatentCacheSpec
from moe_serve.layers.linear import LinearLayer
from moe_serve.layers.norm import RmsNormLayer
from moe_serve.layers.rotary import Rotation


@dataclass(frozen=True, slots=True)
class HeadLinearLayer:
    """One matrix per head, with its packed weight."""

    op: HeadLinear
    packed: Packed

    def __call__(self, x_THa: torch.Tensor) -> torch.Tensor:
        return self.op(x_THa, self.packed)


@dataclass(frozen=True, slots=True)
class QueryExpansion:
    """From the compressed query to all heads' queries."""

    norm: RmsNormLayer
    up: LinearLayer

    def __call__(self, q_Tq: torch.Tensor) -> torch.Tensor:
        return self.up(self.norm(q_Tq))


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Attributes:
    layer: the model's layer, which picks the cache.
    num_heads: of this rank; the latent and its cache are for all heads.
    down: to the query (compressed where there is an `expansion`), then latent, then rotary key.
    key_absorbed: n -> l, value_absorbed: l -> v; the two halves of the latent's expansion.
    scale: of the softmax.
    """

    layer: int
    num_heads: int
    rotary_width: int
    latent_width: int
    down: LinearLayer
    expansion: QueryExpansion | None
    latent_norm: RmsNormLayer
    key_absorbed: HeadLinearLayer
    value_absorbed: HeadLinearLayer
    output: LinearLayer
    scale: float

    @property
    def cache_spec(self) -> LatentCacheSpec:
        return LatentCacheSpec(self.latent_width + self.rotary_width)

    def __call__(
        self, x_TD: torch.Tensor, rotation: Rotation, context: ForwardContext
    ) -> torch.Tensor:
        q_Tq, latent_Tc = self.down(x_TD).tensor_split(
            [-self.latent_width - self.rotary_width], dim=-1
        )
        cache = self._write(latent_Tc, rotation, context)
        o_THl = context.ops.latent_attention(
            self._latent_queries(q_Tq, rotation),
            cache.latent_PSc,
            context.paged,
            self.scale,
            self.latent_width,
        )
        part_TD = self.output(self.value_absorbed(o_THl).flatten(1))
        return ordered_sum(context.attention, part_TD)

    def _latent_queries(self, q_Tq: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        if self.expansion is not None:
            q_Tq = self.expansion(q_Tq)
        q_THx = q_Tq.reshape(q_Tq.shape[0], self.num_heads, q_Tq.shape[1] // self.num_heads)
        q_THn, q_THr = q_THx.tensor_split([-self.rotary_width], dim=-1)
        return torch.cat((self.key_absorbed(q_THn), rotation(q_THr)), dim=-1)

    def _write(
        self, latent_Tc: torch.Tensor, rotation: Rotation, context: ForwardContext
    ) -> LatentCache:
        cache = context.caches[self.layer]
        assert isinstance(cache, LatentCache)
        latent_Tl, key_Tr = latent_Tc.tensor_split([self.latent_width], dim=-1)
        key_Tr = rotation(key_Tr.unsqueeze(1)).squeeze(1)
        row_Tc = torch.cat((self.latent_norm(latent_Tl), key_Tr), dim=-1)
        write_finite(cache.latent_PSc, context.paged.slot_T, row_Tc)
        return cache
