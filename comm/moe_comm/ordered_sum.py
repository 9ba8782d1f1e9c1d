"""Sums over the ranks of an exchange with the same bits everywhere, which a transport's own
reduction does not promise.

Shape legend: T rows, D width, N ranks, t rows of one rank's share of T.
"""

import torch

from moe_comm.shard import Shard
from moe_comm.transport.exchange import Exchange

# Few rows cost less in one exchange than in two; many do in two, as fewer bytes move.
_NUM_ROWS_AT_ONCE = 256


def ordered_sum(
    exchange: Exchange, part_TD: torch.Tensor, own_tD: torch.Tensor | None = None
) -> torch.Tensor:
    """Each rank's part added in rank order in fp32 -> the same x_TD on all ranks, in the parts'
    dtype.

    A row's sum depends on nothing but that row. Few rows are gathered and added everywhere; many
    are added each at one rank and then gathered (reduce-scatter and all-gather, Thakur,
    Rabenseifner and Gropp 2005), which gives the same bits.

    Args:
        part_TD: as many rows on every rank.
        own_tD: added to the sum, in its dtype, by the rank whose share of T these rows are.

    Raises:
        PeerLostError: a rank did not answer in time.
    """
    if exchange.size == 1:
        return part_TD if own_tD is None else own_tD + part_TD
    if len(part_TD) > _NUM_ROWS_AT_ONCE:
        return _add_shares(exchange, part_TD.contiguous(), own_tD)
    return _add_everywhere(exchange, part_TD, own_tD)


def gather_shares(exchange: Exchange, own_tD: torch.Tensor, num_rows: int) -> torch.Tensor:
    """-> x_TD on all ranks, of which each had its share; T is `num_rows`."""
    if exchange.size == 1 or num_rows == 0:
        return own_tD
    sizes = Shard(exchange.rank, exchange.size).sizes(num_rows)
    return exchange.allgather_rows(own_tD.contiguous(), sizes)


def _add_everywhere(
    exchange: Exchange, part_TD: torch.Tensor, own_tD: torch.Tensor | None
) -> torch.Tensor:
    num_rows = len(part_TD)
    if num_rows == 0:
        return part_TD
    if own_tD is None:
        rows = exchange.allgather_rows(part_TD.contiguous(), [num_rows] * exchange.size)
        return _add(torch.split(rows, num_rows))
    sizes = Shard(exchange.rank, exchange.size).sizes(num_rows)
    both = torch.cat((part_TD, own_tD))
    rows = exchange.allgather_rows(both, [num_rows + size for size in sizes])
    pieces = torch.split(rows, [height for size in sizes for height in (num_rows, size)])
    return torch.cat(pieces[1::2]) + _add(pieces[::2])


def _add_shares(
    exchange: Exchange, part_TD: torch.Tensor, own_tD: torch.Tensor | None
) -> torch.Tensor:
    sizes = Shard(exchange.rank, exchange.size).sizes(len(part_TD))
    own_size = sizes[exchange.rank]
    rows = exchange.start_rows(part_TD, sizes, [own_size] * exchange.size).finish()
    sum_tD = _add(torch.split(rows, own_size))
    return exchange.allgather_rows(sum_tD if own_tD is None else own_tD + sum_tD, sizes)


def _add(parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
    first_tD, *others = parts
    total_tD = first_tD.to(torch.float32, copy=True)
    for other_tD in others:
        total_tD += other_tD
    return total_tD.to(first_tD.dtype)
