"""What a checkpoint itself says: logits in float32, with no more than a layer in memory.

A layer is read, used for all prompts at once, and dropped; of its experts one at a time, and of
the vocabulary what the prompts name, then some rows of the head after the other.

Shape legend: T tokens of all prompts, D width, V vocabulary, R rows of a layer's experts.
"""

from collections.abc import Sequence

import torch
from moe_comm.local import LocalDispatcher
from moe_comm.routing import RoutingTable
from moe_kernels.ops import Ops
from moe_kernels.table import select_ops
from torch.nn import functional

from moe_serve.accuracy.on_demand import OnDemandLoader
from moe_serve.layers.context import ForwardContext
from moe_serve.layers.rotary import rotary_table
from moe_serve.models.model import EMBEDDING, LAST_NORM, Family, decoder_layer, head_name, norm
from moe_serve.models.registry import find_family
from moe_serve.models.shape import ModelShape
from moe_serve.step.cache import allocate_cache
from moe_serve.step.inputs import build_inputs
from moe_serve.types import Batch, Chunk
from moe_serve.weights.checkpoint import Checkpoint

_HOST = torch.device("cpu")
_PAGE_SIZE = 16
_HEAD_ROWS = 8192


@torch.inference_mode()
def reference_logits(
    checkpoint: Checkpoint, prompts: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, ...]:
    """Next-token logits_TV at every position of each prompt, by plain float32 ops on the host.

    Args:
        prompts: none of them empty.

    Raises:
        CheckpointError: a tensor that is missing, misshapen or unreadable.
        UnsupportedError: a model that this version does not have.
    """
    family = find_family(checkpoint.config)
    ops = select_ops("cpu", "float32", reference=True)
    loader = OnDemandLoader(checkpoint, ops, family.shape)
    context = _context(family.shape, prompts, ops)
    x_TD = _embed(loader, family.shape, context.token_ids_T)
    rotation = rotary_table(family.rotary, torch.float32, _HOST).at(context.position_T)
    for layer in range(family.shape.num_layers):
        x_TD = decoder_layer(family, loader, layer)(x_TD, rotation, context)
    logits_TV = _predict(family, loader, norm(family, loader, LAST_NORM)(x_TD))
    return torch.split(logits_TV, [len(prompt) for prompt in prompts])


def _context(shape: ModelShape, prompts: Sequence[Sequence[int]], ops: Ops) -> ForwardContext:
    """All prompts whole, in one step over a cache of their own."""
    chunks, num_pages = [], 0
    for prompt in prompts:
        count = -(-len(prompt) // _PAGE_SIZE)
        pages = tuple(range(num_pages, num_pages + count))
        chunks.append(Chunk("", 0, tuple(prompt), pages, True))
        num_pages += count
    inputs = build_inputs(Batch(tuple(chunks)), _PAGE_SIZE, _HOST)
    experts = range(shape.num_experts)
    tables = {
        layer: RoutingTable(layer, [experts], [[1.0] * len(experts)], len(experts))
        for layer in shape.moe_layers
    }
    return ForwardContext(
        token_ids_T=inputs.token_ids_T,
        position_T=inputs.position_T,
        keys_T=inputs.keys_T,
        sample_S=torch.arange(len(inputs.token_ids_T)),
        paged=inputs.paged,
        caches=allocate_cache(shape.cache_specs, num_pages, _PAGE_SIZE, torch.float32, _HOST),
        dispatcher=LocalDispatcher(tables),
        ops=ops,
    )


def _embed(loader: OnDemandLoader, shape: ModelShape, token_ids_T: torch.Tensor) -> torch.Tensor:
    whole = [shape.vocab_size, shape.width]
    distinct, place_T = torch.unique(token_ids_T, return_inverse=True)
    rows = [
        loader.tensor(EMBEDDING, whole, rows=slice(token, token + 1)) for token in distinct.tolist()
    ]
    return torch.cat(rows)[place_T]


def _predict(family: Family, loader: OnDemandLoader, x_TD: torch.Tensor) -> torch.Tensor:
    vocab_size, width = family.shape.vocab_size, family.shape.width
    logits_TV = x_TD.new_empty(len(x_TD), vocab_size)
    for first in range(0, vocab_size, _HEAD_ROWS):
        rows = slice(first, min(first + _HEAD_ROWS, vocab_size))
        weight = loader.tensor(head_name(family), [vocab_size, width], rows=rows)
        logits_TV[:, rows] = functional.linear(x_TD, weight)
    return logits_TV
