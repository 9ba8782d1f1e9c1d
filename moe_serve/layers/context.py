"""What a model's layers need to know of the step they compute; passed down, never global."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from moe_comm.dispatcher import Dispatcher
from moe_comm.shard import Shard
from moe_comm.transport.exchange import Exchange
from moe_comm.transport.local import LocalExchange
from moe_kernels.ops import Ops
from moe_kernels.paged import PagedTokens


@dataclass(frozen=True, slots=True)
class GroupedCache:
    """One layer's keys and values, for grouped-query attention."""

    keys_PSHd: torch.Tensor
    values_PSHv: torch.Tensor


@dataclass(frozen=True, slots=True)
class LatentCache:
    """One layer's compressed latent and rotary key, for multi-head latent attention."""

    latent_PSc: torch.Tensor


LayerCache = GroupedCache | LatentCache


@dataclass(frozen=True, slots=True)
class GroupedCacheSpec:
    """The cache shape that a grouped-query attention layer asks for."""

    num_kv_heads: int
    head_width: int


@dataclass(frozen=True, slots=True)
class LatentCacheSpec:
    """The cache shape that a latent attention layer asks for."""

    latent_width: int


CacheSpec = GroupedCacheSpec | LatentCacheSpec


def ignore_layer(layer: int) -> None:
    """What most steps do after a layer."""


@dataclass(frozen=True, slots=True)
class ForwardContext:
    """One step on one rank.

    Attributes:
        token_ids_T, position_T: int64 on the device; T may be 0.
        keys_T: int64 on the host, from `moe_comm.routing.token_keys`; choose among replicas of an
            expert.
        sample_S: rows of the tokens whose logits are wanted.
        caches: by layer.
        attention: the ranks that share one copy of attention, dense and shared-expert weights
            and the vocabulary. All of them have the same tokens.
        after_layer: called with each layer whose keys and values are in the caches.
    """

    token_ids_T: torch.Tensor
    position_T: torch.Tensor
    keys_T: torch.Tensor
    sample_S: torch.Tensor
    paged: PagedTokens
    caches: tuple[LayerCache, ...]
    dispatcher: Dispatcher
    ops: Ops
    attention: Exchange = field(default_factory=LocalExchange)
    after_layer: Callable[[int], None] = ignore_layer

    @property
    def shard(self) -> Shard:
        """This rank among those that share its attention."""
        return Shard(self.attention.rank, self.attention.size)

    @property
    def own_tokens(self) -> slice:
        """The tokens that this rank sends to their experts."""
        return self.shard.of(self.token_ids_T.shape[0])
