"""What a model's layers need to know of the step they compute; passed down, never global."""

from dataclasses import dataclass

import torch
from moe_comm.dispatcher import Dispatcher
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


@dataclass(frozen=True, slots=True)
class ForwardContext:
    """One step on one rank.

    Attributes:
        token_ids_T, position_T: int64 on the device; T may be 0.
        keys_T: int64, from `moe_comm.routing.token_keys`; choose among replicas of an expert.
        sample_S: rows of the tokens whose logits are wanted.
        caches: by layer.
    """

    token_ids_T: torch.Tensor
    position_T: torch.Tensor
    keys_T: torch.Tensor
    sample_S: torch.Tensor
    paged: PagedTokens
    caches: tuple[LayerCache, ...]
    dispatcher: Dispatcher
    ops: Ops
