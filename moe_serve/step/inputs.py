"""A Batch of ints becomes the tensors of one step.

Shape legend: T tokens, S sequences of a group, Q queries per sequence (padded), P pages (padded).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from moe_comm.routing import token_keys
from moe_kernels.paged import AttentionGroup, PagedTokens

from moe_serve.types import Batch, Chunk

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StepInputs:
    """One step's tensors; the fields mean what they mean in ForwardContext."""

    token_ids_T: torch.Tensor
    position_T: torch.Tensor
    keys_T: torch.Tensor
    sample_S: torch.Tensor
    paged: PagedTokens


def build_inputs(batch: Batch, page_size: int, device: torch.device) -> StepInputs:
    """Lay the batch's chunks out one after the other, in the batch's order."""
    lengths = np.array([len(chunk.token_ids) for chunk in batch.chunks], dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    token_ids = np.fromiter(
        (token for chunk in batch.chunks for token in chunk.token_ids), np.int64, int(offsets[-1])
    )
    starts = np.array([chunk.start for chunk in batch.chunks], dtype=np.int64)
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    positions = np.repeat(starts, lengths) + within
    pages = _page_table(batch.chunks)
    sequence_T = np.repeat(np.arange(len(batch.chunks)), lengths)
    slots = pages[sequence_T, positions // page_size] * page_size + positions % page_size
    samples = [index for index, chunk in enumerate(batch.chunks) if chunk.samples]

    def upload(array: Ints) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    groups = tuple(
        _group(members, offsets, lengths, starts, pages, page_size, upload)
        for members in _members_by_length(lengths)
    )
    return StepInputs(
        token_ids_T=upload(token_ids),
        position_T=upload(positions),
        keys_T=token_keys(torch.from_numpy(token_ids), torch.from_numpy(positions)),
        sample_S=upload(offsets[1:][samples] - 1),
        paged=PagedTokens(upload(slots), groups, page_size),
    )


def _members_by_length(lengths: Ints) -> list[Ints]:
    """Chunks of like length together, so that padding at most doubles a group's queries."""
    buckets: dict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths.tolist()):
        buckets[(length - 1).bit_length()].append(index)
    return [np.array(buckets[key]) for key in sorted(buckets)]


def _page_table(chunks: Sequence[Chunk]) -> Ints:
    width = max((len(chunk.page_ids) for chunk in chunks), default=0)
    table = np.zeros((len(chunks), width), dtype=np.int64)
    for row, chunk in zip(table, chunks, strict=True):
        row[: len(chunk.page_ids)] = chunk.page_ids
    return table


def _group(
    members: Ints,
    offsets: Ints,
    lengths: Ints,
    starts: Ints,
    pages: Ints,
    page_size: int,
    upload: Callable[[Ints], torch.Tensor],
) -> AttentionGroup:
    queries = np.arange(lengths[members].max())
    inside = queries[None] < lengths[members, None]
    context = starts[members] + lengths[members]
    max_length = int(context.max())
    num_pages = -(-max_length // page_size)
    return AttentionGroup(
        token_SQ=upload(np.where(inside, offsets[members, None] + queries, 0)),
        position_SQ=upload(np.where(inside, starts[members, None] + queries, -1)),
        pages_SP=upload(pages[members, :num_pages]),
        length_S=upload(context),
        max_length=max_length,
    )
