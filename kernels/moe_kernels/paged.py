"""How the tokens of one step lie in pages: index tensors, built once per step, read by every layer.

Shape legend: T tokens, S sequences of a group, Q queries per sequence (padded), P pages per
sequence (padded).
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Sequences whose queries are attended to together, padded to the longest of them.

    Attributes:
        token_SQ: row of each query among the step's tokens; padding repeats row 0.
        position_SQ: position of each query in its sequence; -1 marks padding.
        pages_SP: page table; padding repeats a valid page.
        length_S: tokens in the cache after this step's have been written.
        max_length: the largest of length_S, as an int, so that no kernel waits for the device.
    """

    token_SQ: torch.Tensor
    position_SQ: torch.Tensor
    pages_SP: torch.Tensor
    length_S: torch.Tensor
    max_length: int


@dataclass(frozen=True, slots=True)
class PagedTokens:
    """Where the step's tokens are written, and who attends to what.

    Attributes:
        slot_T: page * page_size + offset at which token t's keys and values are written.
        groups: sequences with a like number of queries together, so that padding stays small;
            every token is in exactly one group.
        page_size: tokens in a page.
    """

    slot_T: torch.Tensor
    groups: tuple[AttentionGroup, ...]
    page_size: int
