"""What one attention layer is to a planner: parameters, cache, state, and FLOPs by kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from moe_placement.model.fields import ConfigFields, SpecError

AttentionKind = Literal["grouped", "latent", "linear", "sparse_latent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSpec:
    """One layer's attention. A pair is one query token and one cached token that it attends to.

    Attributes:
        parameters: projections with their biases.
        kv_parameters: those of them that are split as the cache is: copied where heads share a
            latent, or where fewer key-value heads are than ranks.
        head_parameters: those that are multiplied head by head, where a latent is absorbed.
        vector_parameters: those that are in no matrix: biases, sinks, convolutions.
        rows: output rows of all other matrices, as far as they are split over the heads.
        kv_rows: those that are split as the cache is.
        whole_rows: those that every rank has: of the projection back.
        norms: the norms inside attention, of queries and keys or of latents.
        kv_elements: elements that one token keeps in the cache, without the indexer's.
        activations: elements that one token needs while the layer runs.
        num_heads: of the queries.
        num_kv_heads: of the cache, which tensor parallelism may split; 1 latent is copied.
        row_elements: of one head's query and its result, as they meet the cache.
        rotary_width: how many numbers of a head turn with position.
        prefill_flops_per_pair: over all heads.
        decode_flops_per_pair: likewise; a latent is attended to without being multiplied out.
        window: tokens that a query sees at most, itself included; 0 is all.
        selected: cached tokens that sparse attention chooses for a query; 0 is all.
        indexer_flops_per_pair: of scoring a cached token, chosen or not.
        indexer_elements: that one token keeps in the indexer's cache.
        state_elements: of a sequence's recurrent state, whatever its length.
        state_flops: of one token against that state.
    """

    kind: AttentionKind
    parameters: int
    kv_parameters: int
    norms: int
    kv_elements: int
    activations: int
    num_heads: int
    num_kv_heads: int
    row_elements: int
    rotary_width: int
    prefill_flops_per_pair: float
    decode_flops_per_pair: float
    window: int = 0
    selected: int = 0
    indexer_flops_per_pair: float = 0.0
    indexer_elements: int = 0
    state_elements: int = 0
    state_flops: float = 0.0
    head_parameters: int = 0
    vector_parameters: int = 0
    rows: int = 0
    kv_rows: int = 0
    whole_rows: int = 0

    @property
    def cache_elements(self) -> int:
        """Elements that one token keeps in all caches of the layer."""
        return self.kv_elements + self.indexer_elements

    def parameters_of(self, tensor_parallel: int) -> int:
        """Of one of the ranks that share this layer."""
        split = self.parameters - self.kv_parameters
        return self._share(split, self.kv_parameters, tensor_parallel)

    def rows_of(self, tensor_parallel: int) -> int:
        """Output rows on one of the ranks that share this layer."""
        return self._share(self.rows, self.kv_rows, tensor_parallel) + self.whole_rows

    def _share(self, split: int, as_cache: int, tensor_parallel: int) -> int:
        kv_shares = min(tensor_parallel, self.num_kv_heads)
        return -(-split // tensor_parallel) + -(-as_cache // kv_shares)


def rotary_part(fields: ConfigFields, default: float) -> float:
    """The part of a head that turns, where the config or its rotary settings name one."""
    rotary = fields.find("rope_scaling") or fields.find("rope_parameters") or {}
    part = rotary.get("partial_rotary_factor") if isinstance(rotary, Mapping) else None
    share = part or fields.find("partial_rotary_factor") or default
    if type(share) not in (int, float) or not 0 < share <= 1:
        raise SpecError(
            f"config.json has partial_rotary_factor {share!r}; it must be above 0 and at most 1"
        )
    return float(share)
