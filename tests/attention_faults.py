"""Faults of one member of an attention group, to show that the exactness tests see them."""

from dataclasses import replace
from typing import Any

import torch

FAULTY_LAYER = 1
# Of a head of latent attention.
VALUE_WIDTH = 24


class WithoutAHead:
    """A projection back whose first head answers nothing."""

    def __init__(self, inner: Any, width: int) -> None:
        self.inner = inner
        self.width = width

    def __call__(self, o_TD: torch.Tensor) -> torch.Tensor:
        o_TD[:, : self.width] = 0
        return self.inner(o_TD)


class Silent:
    """A product whose part of the sum is lost."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, x_TD: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(self.inner(x_TD))


def with_layer(model: Any, **changes: Any) -> Any:
    layers = list(model.layers)
    layers[FAULTY_LAYER] = replace(layers[FAULTY_LAYER], **changes)
    return replace(model, layers=tuple(layers))


def drop_head(model: Any) -> Any:
    attention = model.layers[FAULTY_LAYER].attention
    width = getattr(attention, "head_width", VALUE_WIDTH)
    lossy = WithoutAHead(attention.output, width)
    return with_layer(model, attention=replace(attention, output=lossy))


def drop_attention(model: Any) -> Any:
    attention = model.layers[FAULTY_LAYER].attention
    return with_layer(model, attention=replace(attention, output=Silent(attention.output)))


def drop_shared_experts(model: Any) -> Any:
    moe = model.layers[FAULTY_LAYER].feed_forward
    shared = replace(moe.shared, down=Silent(moe.shared.down))
    return with_layer(model, feed_forward=replace(moe, shared=shared))


def shift_vocabulary(model: Any) -> Any:
    embedding = replace(model.embedding, first=model.embedding.first + 1)
    return replace(model, embedding=embedding)


FAULTS = {
    fault.__name__: fault
    for fault in (drop_head, drop_attention, drop_shared_experts, shift_vocabulary)
}
