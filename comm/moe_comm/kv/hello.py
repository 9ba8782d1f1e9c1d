"""What each end of a KV connection says of itself: the model, its part of it, and its numbers."""

from typing import Annotated, ClassVar, Literal, TypeAlias

import msgspec

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**31)]

PROTOCOL_VERSION = 1


class GroupedLayer(msgspec.Struct, frozen=True, kw_only=True, tag="gqa", tag_field="kind"):
    """A layer of grouped-query attention (also multi-head and multi-query).

    Attributes:
        num_kv_heads: of the whole model.
        first_head, end_head: those of them that this rank holds.
        key_width, value_width: of one head.
        rotary_width: how many numbers of each key, from its first, are turned with position.
    """

    num_kv_heads: Positive
    first_head: Count
    end_head: Positive
    key_width: Positive
    value_width: Positive
    rotary_width: Count

    @property
    def widths(self) -> tuple[int, int]:
        return self.key_width, self.value_width

    @property
    def rotary_widths(self) -> tuple[int, int]:
        return self.rotary_width, 0


class LatentLayer(msgspec.Struct, frozen=True, kw_only=True, tag="mla", tag_field="kind"):
    """A layer of multi-head latent attention: one latent and one rotary key for all heads.

    Attributes:
        latent_width: without the rotary key.
        rotary_width: of the rotary key.
    """

    latent_width: Positive
    rotary_width: Positive

    first_head: ClassVar[int] = 0
    end_head: ClassVar[int] = 1

    @property
    def widths(self) -> tuple[int, int]:
        return self.latent_width, self.rotary_width

    @property
    def rotary_widths(self) -> tuple[int, int]:
        return 0, self.rotary_width


Layer: TypeAlias = GroupedLayer | LatentLayer
RotaryOrder: TypeAlias = Literal["halves", "interleaved"]


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello", tag_field="type"):
    """One end's declaration.

    Attributes:
        versions: of this protocol that it speaks.
        name: of this end among all that it may meet.
        model_name, model_digest: see `model_digest`; both ends must have the same.
        layers: every layer of the model, in order.
        rank, num_ranks: its place among the ranks that share one copy of the cache.
        cache_type: in which it keeps its cache: float32, bfloat16 or float16.
        sends: wire types, best first; empty if it only receives.
        receives: wire types; empty if it only sends.
        page_size: tokens; for the record, as blocks do not depend on it.
        rotary_order: how the numbers that turn together lie in a key: `halves` pairs i with
            i + width / 2, `interleaved` 2 i with 2 i + 1.
        nonce: 64 hexadecimal digits, fresh for each connection.
    """

    versions: tuple[Positive, ...] = (PROTOCOL_VERSION,)
    name: str
    model_name: str
    model_digest: str
    layers: tuple[Layer, ...]
    rank: Count = 0
    num_ranks: Positive = 1
    cache_type: str
    sends: tuple[str, ...]
    receives: tuple[str, ...]
    page_size: Positive
    rotary_order: RotaryOrder
    nonce: str = ""

    @property
    def cells(self) -> frozenset[tuple[int, int]]:
        """The (layer, head) pairs that this rank holds."""
        return frozenset(
            (index, head)
            for index, layer in enumerate(self.layers)
            for head in range(layer.first_head, layer.end_head)
        )
