"""What the ranks of mpi_worker.py compute: random placements, tokens, and simple experts."""

import numpy as np
import torch
from moe_comm.dispatcher import Dispatcher, PendingCombine, PendingDispatch
from moe_comm.local import LocalDispatcher
from moe_comm.routing import RoutingTable, token_keys

NUM_EXPERTS, NUM_CHOSEN, WIDTH = 20, 4, 24


class Placement:
    """Experts spread at random: uneven counts, replicas, and for some seeds a rank with none."""

    def __init__(self, num_ranks: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.slots: list[list[int]] = [[] for _ in range(num_ranks)]
        homes = range(num_ranks) if seed % 2 else range(max(1, num_ranks - 1))
        extra = random.integers(0, NUM_EXPERTS, size=seed * 3).tolist()
        for expert in [*random.permutation(NUM_EXPERTS).tolist(), *extra]:
            self.slots[random.choice(homes)].append(expert)
        self.weights = [random.uniform(0.1, 1, len(held)).tolist() for held in self.slots]

    def table(self, layer: int) -> RoutingTable:
        return RoutingTable(layer, self.slots, self.weights, NUM_EXPERTS)


class Tokens:
    """One rank's tokens, the same whenever and wherever they are made."""

    def __init__(self, rank: int, seed: int, dtype: torch.dtype, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(seed * 100 + rank)
        num_tokens = (0, 5, 33, 80)[(rank + seed) % 4]
        self.x_TD = torch.randn(num_tokens, WIDTH, generator=generator).to(device, dtype)
        scores = torch.rand(num_tokens, NUM_EXPERTS, generator=generator).to(device)
        self.weights_TK, self.ids_TK = scores.topk(NUM_CHOSEN, dim=1)
        token_ids = torch.randint(0, 1000, (num_tokens,), generator=generator)
        self.keys_T = token_keys(token_ids, torch.arange(num_tokens))

    def start(self, dispatcher: Dispatcher, layer: int) -> PendingDispatch:
        return dispatcher.start(layer, self.x_TD, self.ids_TK, self.weights_TK, self.keys_T)


def compute(
    dispatcher: Dispatcher, pending: PendingDispatch, slots: list[int], faulty: bool = False
) -> PendingCombine:
    """Each expert scales and shifts its rows; rows do not influence one another."""
    rows, handle = pending.finish()
    assert rows.counts_E.tolist() == [int(count) for count in rows.counts_E]
    assert len(rows.counts_E) == len(slots) and int(rows.counts_E.sum()) == len(rows.rows_RD)
    expert_R1 = torch.tensor(slots, dtype=torch.int64).repeat_interleave(rows.counts_E)[:, None]
    expert_R1 = expert_R1.to(rows.rows_RD)
    y_RD = rows.rows_RD * (expert_R1 + 1) + expert_R1
    if faulty and len(y_RD):
        y_RD[len(y_RD) // 2] = 0
    return dispatcher.start_combine(y_RD, handle)


def on_one_rank(tokens: Tokens, layer: int) -> torch.Tensor:
    everything = list(range(NUM_EXPERTS))
    table = RoutingTable(layer, [everything], [[1.0] * NUM_EXPERTS], NUM_EXPERTS)
    local = LocalDispatcher({layer: table})
    return compute(local, tokens.start(local, layer), everything).finish()
