"""Rows that all ranks of an exchange get, gathered or summed; run by mpi_worker.py."""

import torch
from moe_comm.ordered_sum import gather_shares, ordered_sum
from moe_comm.shard import Shard
from moe_comm.transport.exchange import Exchange
from mpi_cases import WIDTH


def check_gathered_rows(exchange: Exchange, device: torch.device) -> None:
    """Of unequal numbers, of none at all, and in every dtype."""
    for counts in ([3 * rank for rank in range(exchange.size)], [2] * exchange.size, [0]):
        counts = counts if len(counts) == exchange.size else [0] * exchange.size
        every_RD = torch.arange(sum(counts) * WIDTH, device=device).view(-1, WIDTH)
        for dtype in (torch.float32, torch.bfloat16, torch.int8):
            own_RD = every_RD.to(dtype).split(counts)[exchange.rank].contiguous()
            assert torch.equal(exchange.allgather_rows(own_RD, counts), every_RD.to(dtype))


def check_ordered_sum(exchange: Exchange, device: torch.device) -> None:
    """Few rows and many; with rows of each rank's own; and the order is that of the ranks."""
    generator = torch.Generator().manual_seed(5)
    for num_rows in (0, 1, 7, 256, 257, 600):
        parts = torch.randn(exchange.size, num_rows, WIDTH, generator=generator).to(device)
        own_TD = torch.randn(num_rows, WIDTH, generator=generator).to(device, torch.bfloat16)
        share = Shard(exchange.rank, exchange.size).of(num_rows)
        assert torch.equal(gather_shares(exchange, own_TD[share], num_rows), own_TD)
        for dtype in (torch.float32, torch.bfloat16):
            expected = parts[0].to(dtype).float()
            for part in parts[1:]:
                expected = expected + part.to(dtype).float()
            expected = expected.to(dtype)
            mine = parts[exchange.rank].to(dtype)
            assert torch.equal(ordered_sum(exchange, mine), expected)
            summed = ordered_sum(exchange, mine, own_TD[share].to(dtype))
            assert torch.equal(summed, own_TD.to(dtype) + expected)
