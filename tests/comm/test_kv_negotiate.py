"""What two ends of the KV wire agree on, and the sentences when they do not."""

import msgspec
import pytest
from kv_ends import grouped, hello, hellos, latent
from moe_comm.kv.hello import GroupedLayer, Hello, LatentLayer
from moe_comm.kv.model_digest import model_digest
from moe_comm.kv.negotiate import CannotConvertError, negotiate
from moe_comm.kv.routes import senders_for


def test_highest_version_and_senders_best_type() -> None:
    sender = hello("a", versions=(1, 2, 3), sends=("int8", "float16", "float32"))
    receiver = hello("b", versions=(2, 1), receives=("float32", "float16", "later"), page_size=3)
    agreement = negotiate(sender, receiver)
    assert (agreement.version, agreement.wire_type) == (2, "float16")
    assert not agreement.reorders
    assert negotiate(sender, msgspec.structs.replace(receiver, rotary_order="interleaved")).reorders


def test_heads_that_both_hold() -> None:
    """Three ranks of two heads send to two ranks of three."""
    sender = hello("a", [grouped(6, 1, 3)])
    layers = [negotiate(sender, hello("b", [grouped(6, rank, 2)])).layers[0] for rank in (0, 1)]
    assert [(each.first_head, each.end_head) for each in layers] == [(2, 3), (3, 4)]
    assert [(each.sender_head, each.receiver_head) for each in layers] == [(0, 2), (1, 0)]


def wider(layer: GroupedLayer, **changes: int) -> GroupedLayer:
    return msgspec.structs.replace(layer, **changes)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (hello("b", versions=(2,)), ["a and b", "version", "1 against 2"]),
        (hello("b", model_name="other"), ["'model', 'other'"]),
        (hello("b", model_digest="0123456789abcdef"), ["config.json", "digest and 0123456789ab"]),
        (hello("b", [grouped()]), ["a has 2 layers, b 1"]),
        (hello("b", [grouped(), latent()]), ["layer 1: attention kind gqa at a, mla at b"]),
        (hello("b", [grouped(8), grouped()]), ["layer 0: number of KV heads 4 at a, 8 at b"]),
        (
            hello("b", [grouped(), wider(grouped(), key_width=9)]),
            ["layer 1: key width 8", "9 at b"],
        ),
        (
            hello("b", [wider(grouped(), value_width=7)] * 2),
            ["layer 0: value width 6 at a, 7 at b"],
        ),
        (hello("b", [wider(grouped(), rotary_width=8)] * 2), ["rotary width 4 at a, 8 at b"]),
        (hello("b", [wider(grouped(), rotary_width=3)] * 2), ["layer 0 of b", "3 is odd"]),
        (hello("b", [wider(grouped(), rotary_width=10)] * 2), ["10 exceeds key width 8"]),
        (
            hello("b", [wider(grouped(), end_head=5)] * 2),
            ["cannot hold KV heads 0 to before 5 of 4"],
        ),
        (hello("b", receives=("int4",)), ["a sends float32, bfloat16", "b receives int4"]),
        (hello("b", receives=()), ["b receives nothing"]),
        (hello("b", cache_type="int8"), ["b keeps its cache in 'int8'"]),
    ],
)
def test_what_cannot_be_converted_is_named(other: Hello, words: list[str]) -> None:
    with pytest.raises(CannotConvertError) as caught:
        negotiate(hello("a"), other)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_latent_widths_are_named() -> None:
    other = LatentLayer(latent_width=12, rotary_width=6)
    with pytest.raises(CannotConvertError, match="layer 0: rotary width 4 at a, 6 at b"):
        negotiate(hello("a", [latent()]), hello("b", [other]))


def test_ranks_without_a_common_head() -> None:
    first, second = hellos("a", "gqa", 2)
    with pytest.raises(CannotConvertError, match=r"no KV head in common \(rank 0 of 2, rank 1"):
        negotiate(first, second)


@pytest.mark.parametrize(
    ("kind", "num_senders", "num_receivers", "routes"),
    [
        ("gqa", 2, 1, [(0, 1)]),
        ("gqa", 1, 2, [(0,), (0,)]),
        ("gqa", 2, 4, [(0,), (0,), (1,), (1,)]),
        ("gqa", 4, 2, [(0, 1), (2, 3)]),
        # Each head of four is held by two of eight ranks, the latent by all: receivers share them.
        ("gqa", 8, 2, [(0, 2), (4, 6)]),
        ("mla", 2, 4, [(0,), (1,), (0,), (1,)]),
        ("mla", 2, 1, [(0,)]),
    ],
)
def test_every_head_comes_once(
    kind: str, num_senders: int, num_receivers: int, routes: list[tuple[int, ...]]
) -> None:
    senders, receivers = hellos("a", kind, num_senders), hellos("b", kind, num_receivers)
    assert [senders_for(receiver, senders) for receiver in receivers] == routes
    for receiver, chosen in zip(receivers, routes, strict=True):
        cells = [negotiate(senders[index], receiver).cells for index in chosen]
        assert sum(map(len, cells)) == len(receiver.cells) == len(frozenset().union(*cells))


def test_a_head_that_nobody_can_send() -> None:
    with pytest.raises(CannotConvertError, match="b:0 needs KV head 2 of layer 0"):
        senders_for(hellos("b", "gqa", 1)[0], hellos("a", "gqa", 2)[:1])


def test_the_digest_follows_shape_not_format() -> None:
    config = {"hidden_size": 8, "rope_scaling": None, "quantization_config": {"bits": 8}}
    plain = model_digest("m", config)
    assert plain == model_digest("m", {"hidden_size": 8, "torch_dtype": "bfloat16"})
    assert plain != model_digest("n", config)
    assert plain != model_digest("m", config | {"hidden_size": 16})
    assert plain != model_digest("m", config | {"rope_scaling": {"factor": 4}})
