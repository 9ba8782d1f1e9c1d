"""One rank's cache as a KV endpoint sees it: what its layers hold, tokens out of and into it."""

from collections.abc import Sequence
from dataclasses import dataclass

from moe_comm.kv.block import Parts
from moe_comm.kv.hello import GroupedLayer, LatentLayer, Layer, RotaryOrder
from moe_comm.kv.paged_tensors import PagedParts, latent_parts, read_block, write_block
from moe_comm.kv.routes import even_heads
from moe_comm.shard import ALONE, Shard

from moe_serve.layers.context import CacheSpec, LatentCache, LatentCacheSpec, LayerCache
from moe_serve.layers.rotary import RotaryTable


@dataclass(frozen=True, slots=True)
class RankKv:
    """Attributes:
    layers: as the KV wire declares them.
    pages: views of each layer's cache.
    shard: whose heads these are, among the ranks that share them.
    """

    layers: tuple[Layer, ...]
    pages: tuple[PagedParts, ...]
    rotary_order: RotaryOrder
    shard: Shard

    @staticmethod
    def of(
        specs: Sequence[CacheSpec],
        caches: Sequence[LayerCache],
        rotary: RotaryTable,
        shard: Shard = ALONE,
    ) -> "RankKv":
        """
        Args:
            specs: of the whole model.
            caches: of the shard's heads.
        """
        width = rotary.table_L2r.shape[-1]
        return RankKv(
            tuple(_declared(spec, width, shard) for spec in specs),
            tuple(_views(cache, width) for cache in caches),
            "interleaved" if rotary.interleaved else "halves",
            shard,
        )

    def read(self, layer: int, page_ids: Sequence[int], first: int, end: int) -> Parts:
        """A copy of one layer's tokens [first, end) of a sequence."""
        return read_block(self.pages[layer], page_ids, first, end)

    def write(
        self, layer: int, page_ids: Sequence[int], first_token: int, first_head: int, parts: Parts
    ) -> None:
        """One layer's tokens, from the first on, into a sequence's pages."""
        write_block(self.pages[layer], page_ids, first_token, first_head, parts)


def _declared(spec: CacheSpec, rotary_width: int, shard: Shard) -> Layer:
    if isinstance(spec, LatentCacheSpec):
        latent_width = spec.latent_width - rotary_width
        return LatentLayer(latent_width=latent_width, rotary_width=rotary_width)
    first_head, end_head = even_heads(spec.num_kv_heads, shard.index, shard.count)
    return GroupedLayer(
        num_kv_heads=spec.num_kv_heads,
        first_head=first_head,
        end_head=end_head,
        key_width=spec.head_width,
        value_width=spec.head_width,
        rotary_width=rotary_width,
    )


def _views(cache: LayerCache, rotary_width: int) -> PagedParts:
    if isinstance(cache, LatentCache):
        return latent_parts(cache.latent_PSc, rotary_width)
    return cache.keys_PSHd, cache.values_PSHv
