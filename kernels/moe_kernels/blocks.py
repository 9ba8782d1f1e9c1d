"""Attention a block at a time: a few sequences, a few of their queries, and so bounded bytes.

What a step's attention holds at once then depends on its longest sequence alone, not on how many
tokens or sequences the step has.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from moe_kernels.paged import AttentionGroup, PagedTokens

# A float32 score, its rearranged copy, its softmax, that in the cache's dtype, and its masks.
SCORE_BYTES = 16
# A query and its result, each as it comes and as the product wants it.
ROW_COPIES = 2


@dataclass(frozen=True, slots=True)
class AttentionBytes:
    """What attention holds for each sequence and each query of a block.

    Attributes:
        cached_token: the gathered keys and values of one token.
        query_row: one query with its result, over all heads, without copies.
        num_heads: heads whose scores are held at once.
    """

    cached_token: int
    query_row: int
    num_heads: int

    def query(self, length: int) -> int:
        """One query that meets so many tokens: its scores in every form, and its rows."""
        return SCORE_BYTES * self.num_heads * length + ROW_COPIES * self.query_row


def sequence_blocks(
    paged: PagedTokens, cost: AttentionBytes, gather_bytes: int, query_bytes: int
) -> Iterator[AttentionGroup]:
    """The groups, cut so that a block gathers at most `gather_bytes` and has room for a query of
    each sequence in `query_bytes`; a single sequence is a block however long it is."""
    for group in paged.groups:
        length = -(-max(1, group.max_length) // paged.page_size) * paged.page_size
        gathered, query = cost.cached_token * length, cost.query(length)
        count = max(1, min(gather_bytes // gathered, query_bytes // query))
        for sequences in _slices(group.length_S.shape[0], count):
            yield _part(group, sequences, slice(None))


def query_blocks(
    group: AttentionGroup, cost: AttentionBytes, query_bytes: int, most: int | None = None
) -> Iterator[AttentionGroup]:
    """A block of sequences, cut so that its queries take at most `query_bytes`, and are at most
    `most` of each sequence; one query of each is a block however long they are."""
    num_sequences, num_queries = group.token_SQ.shape
    count = max(1, query_bytes // (num_sequences * cost.query(max(1, group.max_length))))
    count = min(count, most or num_queries)
    for queries in _slices(num_queries, count):
        yield _part(group, slice(None), queries)


def _slices(number: int, count: int) -> Iterator[slice]:
    """So many at a time; all of them by the slice that takes everything."""
    if number <= count:
        return iter([slice(None)])
    return (slice(first, first + count) for first in range(0, number, count))


def _part(group: AttentionGroup, sequences: slice, queries: slice) -> AttentionGroup:
    if sequences == queries == slice(None):
        return group
    return AttentionGroup(
        token_SQ=group.token_SQ[sequences, queries],
        position_SQ=group.position_SQ[sequences, queries],
        pages_SP=group.pages_SP[sequences],
        length_S=group.length_S[sequences],
        max_length=group.max_length,
    )
