"""Paged caches of random sequences, laid out as a step would find them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from moe_kernels.paged import AttentionGroup, PagedTokens


@dataclass(frozen=True)
class Chunked:
    """Sequences with dense contents, and how one step sees them.

    Attributes:
        starts, lengths: by sequence: queries at positions start .. length - 1.
        members: sequences of each attention group, in the order of their tokens.
    """

    dense: tuple[torch.Tensor, ...]
    starts: Sequence[int]
    lengths: Sequence[int]
    members: Sequence[Sequence[int]]
    page_size: int = 4
    seed: int = 0
    extra_pages: int = 3
    stale: float = 7.0
    tables: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        per_sequence = [-(-length // self.page_size) for length in self.lengths]
        order = torch.randperm(sum(per_sequence) + self.extra_pages, generator=generator).tolist()
        for count in per_sequence:
            self.tables.append([order.pop() for _ in range(count)])

    def pages(self) -> torch.Tensor:
        """The cache [P, page, ...]: every token of every sequence, stale numbers elsewhere."""
        num_pages = sum(map(len, self.tables)) + self.extra_pages
        cache = self.dense[0].new_full(
            (num_pages, self.page_size, *self.dense[0].shape[1:]), self.stale
        )
        for dense, table, length in zip(self.dense, self.tables, self.lengths, strict=True):
            position = torch.arange(length)
            page = torch.tensor(table)[position // self.page_size]
            cache[page, position % self.page_size] = dense[:length]
        return cache

    def paged(self) -> PagedTokens:
        groups, first = [], 0
        for members in self.members:
            groups.append(self._group(members, first))
            first += sum(self.lengths[s] - self.starts[s] for s in members)
        slots = torch.cat([torch.empty(0, dtype=torch.int64), *self._slots()])
        return PagedTokens(slot_T=slots, groups=tuple(groups), page_size=self.page_size)

    def _slots(self) -> Iterator[torch.Tensor]:
        for sequence in (s for members in self.members for s in members):
            position = torch.arange(self.starts[sequence], self.lengths[sequence])
            page = torch.tensor(self.tables[sequence])[position // self.page_size]
            yield page * self.page_size + position % self.page_size

    def _group(self, members: Sequence[int], first: int) -> AttentionGroup:
        longest = max(self.lengths[s] - self.starts[s] for s in members)
        most_pages = max(len(self.tables[s]) for s in members)
        tokens, positions, tables = [], [], []
        for sequence in members:
            count = self.lengths[sequence] - self.starts[sequence]
            padding = longest - count
            tokens.append([*range(first, first + count), *[0] * padding])
            positions.append(
                [*range(self.starts[sequence], self.lengths[sequence]), *[-1] * padding]
            )
            table = self.tables[sequence]
            tables.append([*table, *[table[0]] * (most_pages - len(table))])
            first += count
        return AttentionGroup(
            token_SQ=torch.tensor(tokens),
            position_SQ=torch.tensor(positions),
            pages_SP=torch.tensor(tables),
            length_S=torch.tensor([self.lengths[s] for s in members]),
            max_length=max(self.lengths[s] for s in members),
        )

    def queries(self, per_sequence: Sequence[torch.Tensor]) -> torch.Tensor:
        """This step's queries of sequences that have one at every position -> [T, ...]."""
        return torch.cat(
            [
                per_sequence[s][self.starts[s] : self.lengths[s]]
                for members in self.members
                for s in members
            ]
        )


@pytest.fixture
def random_tensor() -> Callable[..., torch.Tensor]:
    """Normal numbers from one seeded generator: `random_tensor(*shape, dtype=...)`."""
    generator = torch.Generator().manual_seed(1)

    def make(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    return make


@pytest.fixture
def chunked() -> type[Chunked]:
    return Chunked
