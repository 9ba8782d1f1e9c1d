"""What two ends agree on before KV crosses between them, or the sentence that says why not."""

from collections.abc import Iterator
from dataclasses import dataclass

from moe_comm.kv.hello import GroupedLayer, Hello, Layer
from moe_comm.kv.number_types import CACHE_TYPES, WIRE_TYPES


class CannotConvertError(ValueError):
    """The two ends differ in what no conversion mends; the message names it."""


@dataclass(frozen=True, slots=True)
class LayerBlocks:
    """What crosses of one layer: its heads from `first_head` to before `end_head`, as two parts
    (keys and values, or latent and rotary key).

    Attributes:
        widths: of the two parts.
        rotary_widths: how many numbers from the first of each part turn with position.
        sender_head, receiver_head: where `first_head` lies among the heads of each end.
    """

    first_head: int
    end_head: int
    widths: tuple[int, int]
    rotary_widths: tuple[int, int]
    sender_head: int
    receiver_head: int

    @property
    def num_heads(self) -> int:
        return self.end_head - self.first_head


@dataclass(frozen=True, slots=True)
class Agreement:
    """How KV crosses in one direction.

    Attributes:
        wire_type: of the numbers on the wire.
        sender_type, receiver_type: in which each end keeps them.
        layers: by layer; one without heads sends nothing.
        reorders: the ends keep rotary numbers in different orders; the receiver reorders.
    """

    version: int
    wire_type: str
    sender_type: str
    receiver_type: str
    sender_order: str
    receiver_order: str
    layers: tuple[LayerBlocks, ...]

    @property
    def reorders(self) -> bool:
        return self.sender_order != self.receiver_order

    @property
    def cells(self) -> frozenset[tuple[int, int]]:
        """The (layer, head) pairs that cross."""
        return frozenset(
            (index, head)
            for index, layer in enumerate(self.layers)
            for head in range(layer.first_head, layer.end_head)
        )


def negotiate(sender: Hello, receiver: Hello) -> Agreement:
    """The highest common version, the sender's best type that the receiver takes, and the heads
    that both hold; both ends work it out from the same two declarations.

    Raises:
        CannotConvertError: they differ in what cannot be converted.
    """
    versions = set(sender.versions) & set(receiver.versions)
    if fault := next(_faults(sender, receiver, versions), None):
        raise CannotConvertError(fault)
    return Agreement(
        max(versions),
        _wire_types(sender, receiver)[0],
        sender.cache_type,
        receiver.cache_type,
        sender.rotary_order,
        receiver.rotary_order,
        tuple(map(_common_blocks, sender.layers, receiver.layers)),
    )


def _wire_types(sender: Hello, receiver: Hello) -> list[str]:
    return [each for each in sender.sends if each in receiver.receives and each in WIRE_TYPES]


def _common_blocks(sender: Layer, receiver: Layer) -> LayerBlocks:
    first = max(sender.first_head, receiver.first_head)
    end = max(first, min(sender.end_head, receiver.end_head))
    return LayerBlocks(
        first,
        end,
        sender.widths,
        sender.rotary_widths,
        first - sender.first_head,
        first - receiver.first_head,
    )


def _faults(sender: Hello, receiver: Hello, versions: set[int]) -> Iterator[str]:
    ends = f"{sender.name} and {receiver.name}"
    if not versions:
        yield (
            f"{ends} speak no common version of the KV wire: {_listed(sender.versions)} against"
            f" {_listed(receiver.versions)}"
        )
    if sender.model_name != receiver.model_name:
        yield f"{ends} serve different models: {sender.model_name!r}, {receiver.model_name!r}"
    if sender.model_digest != receiver.model_digest:
        yield (
            f"{ends} serve different models by the name {sender.model_name!r}: their config.json"
            f" have digests {sender.model_digest[:12]} and {receiver.model_digest[:12]}"
        )
    yield from _layer_faults(sender, receiver)
    yield from _type_faults(sender, receiver)
    if not sender.cells & receiver.cells:
        yield (
            f"{ends} hold no KV head in common (rank {sender.rank} of {sender.num_ranks}, rank"
            f" {receiver.rank} of {receiver.num_ranks}); connect ranks that share heads"
        )


def _layer_faults(sender: Hello, receiver: Hello) -> Iterator[str]:
    counts = len(sender.layers), len(receiver.layers)
    if counts[0] != counts[1]:
        yield f"{sender.name} has {counts[0]} layers, {receiver.name} {counts[1]}"
    for index, (ours, theirs) in enumerate(zip(sender.layers, receiver.layers, strict=False)):
        for hello, layer in ((sender, ours), (receiver, theirs)):
            yield from (f"layer {index} of {hello.name}: {fault}" for fault in _misfits(layer))
        shapes = _shape(ours), _shape(theirs)
        differing = next((key for key in shapes[0] if shapes[0][key] != shapes[1].get(key)), None)
        if differing is not None:
            yield (
                f"layer {index}: {differing} {shapes[0][differing]} at {sender.name},"
                f" {shapes[1][differing]} at {receiver.name}"
            )


def _shape(layer: Layer) -> dict[str, object]:
    """What of a layer must be the same at both ends, by its name in a sentence."""
    if isinstance(layer, GroupedLayer):
        return {
            "attention kind": "gqa",
            "number of KV heads": layer.num_kv_heads,
            "key width": layer.key_width,
            "value width": layer.value_width,
            "rotary width": layer.rotary_width,
        }
    return {
        "attention kind": "mla",
        "latent width": layer.latent_width,
        "rotary width": layer.rotary_width,
    }


def _misfits(layer: Layer) -> Iterator[str]:
    if isinstance(layer, GroupedLayer):
        if not layer.first_head < layer.end_head <= layer.num_kv_heads:
            held = f"{layer.first_head} to before {layer.end_head}"
            yield f"cannot hold KV heads {held} of {layer.num_kv_heads}"
        if layer.rotary_width > layer.key_width:
            yield f"rotary width {layer.rotary_width} exceeds key width {layer.key_width}"
    if layer.rotary_width % 2:
        yield f"rotary width {layer.rotary_width} is odd"


def _type_faults(sender: Hello, receiver: Hello) -> Iterator[str]:
    for hello in (sender, receiver):
        if hello.cache_type not in CACHE_TYPES:
            yield (
                f"{hello.name} keeps its cache in {hello.cache_type!r}, not in one of"
                f" {_listed(CACHE_TYPES)}"
            )
    if not _wire_types(sender, receiver):
        yield (
            f"{sender.name} sends {_listed(sender.sends) or 'nothing'}, {receiver.name} receives"
            f" {_listed(receiver.receives) or 'nothing'}: no number type in common"
        )


def _listed(things: tuple[object, ...]) -> str:
    return ", ".join(map(str, things))
