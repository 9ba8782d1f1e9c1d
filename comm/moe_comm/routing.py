"""Which replica of an expert serves a token: pure index maths, the same on every rank.

Shape legend: T tokens, K experts chosen per token, E experts, G slots of all ranks in rank order,
M replicas of the most replicated expert, N ranks, S slots here, R rows.
"""

from collections.abc import Sequence

import numpy as np
import torch

from moe_comm.transport.exchange import Ints

# SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014), its
# constants written as signed int64.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64
_DRAW_BITS = 31


def _mix(keys: torch.Tensor) -> torch.Tensor:
    keys = (keys ^ _shift(keys, 30)) * _FIRST
    keys = (keys ^ _shift(keys, 27)) * _SECOND
    return keys ^ _shift(keys, 31)


def _shift(keys: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    shifted: torch.Tensor = (keys >> bits) & (2 ** (64 - bits) - 1)
    return shifted


def token_keys(token_ids_T: torch.Tensor, position_T: torch.Tensor) -> torch.Tensor:
    """-> keys_T: int64, well mixed, of token id and position alone."""
    return _mix(_mix(token_ids_T + _GOLDEN) + position_T * _GOLDEN)


class RoutingTable:
    """One layer's experts and where their replicas live, with the share that each one takes.

    Args:
        layer: the model's layer; replicas of different layers are chosen independently.
        slots: for each rank of the group, in rank order, the expert in each of its slots.
        weights: same shape; a replica takes its weight's part of its expert's total.
        num_experts: global expert ids are below this.
        device: where the token tensors are.

    Raises:
        ValueError: an expert has no replica with weight, or the arrays do not fit.
    """

    def __init__(
        self,
        layer: int,
        slots: Sequence[Sequence[int]],
        weights: Sequence[Sequence[float]],
        num_experts: int,
        device: torch.device | str = "cpu",
    ) -> None:
        _validate(layer, slots, weights, num_experts)
        self.slots_per_rank = [len(rank_slots) for rank_slots in slots]
        self._bounds = np.cumsum([0, *self.slots_per_rank])
        replicas_EM, thresholds_EM = _replicas(slots, weights, num_experts)
        self._replicas_EM = torch.from_numpy(replicas_EM).to(device)
        self._thresholds_EM = torch.from_numpy(thresholds_EM).to(device)
        self._has_replicas = replicas_EM.shape[1] > 1
        salts_E = torch.arange(num_experts, device=device) + (layer << 32)
        self._salts_E = _mix(_mix(salts_E) + _GOLDEN)
        self._bounds_on_device = torch.from_numpy(self._bounds).to(device)

    @property
    def num_slots(self) -> int:
        return int(self._bounds[-1])

    def choose_slots(self, ids_TK: torch.Tensor, keys_T: torch.Tensor) -> torch.Tensor:
        """-> slot_TK: index among the slots of all ranks, in rank order."""
        if not self._has_replicas:
            return self._replicas_EM.take(ids_TK)
        draw_TK = _shift(_mix(keys_T[:, None] ^ self._salts_E[ids_TK]), 64 - _DRAW_BITS)
        replica_TK1 = (draw_TK[..., None] >= self._thresholds_EM[ids_TK]).sum(-1, keepdim=True)
        return self._replicas_EM[ids_TK].gather(-1, replica_TK1).squeeze(-1)

    def choose(
        self, ids_TK: torch.Tensor, keys_T: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """-> rank_TK, local_slot_TK of the replica that serves each token's expert.

        Depends on layer, expert, token id and position (by the token's key) and nothing else; a
        replica is chosen in proportion to its weight.
        """
        slot_TK = self.choose_slots(ids_TK, keys_T)
        rank_TK = torch.searchsorted(self._bounds_on_device, slot_TK, right=True) - 1
        return rank_TK, slot_TK - self._bounds_on_device[rank_TK]

    def rows_per_rank(self, slot_counts_G: Ints) -> list[int]:
        """Rows for each rank, given those for each slot."""
        totals = np.zeros(len(slot_counts_G) + 1, dtype=np.int64)
        np.cumsum(slot_counts_G, out=totals[1:])
        at_bounds = totals[self._bounds]
        counts: list[int] = (at_bounds[1:] - at_bounds[:-1]).tolist()
        return counts


def slot_order(counts_NS: Ints) -> Ints:
    """-> index_R that takes rows sorted by (sender, slot) into the order (slot, sender)."""
    lengths = counts_NS.T.ravel()
    ends = np.cumsum(counts_NS).reshape(counts_NS.shape)
    starts = (ends - counts_NS).T.ravel()
    shifts = starts - (np.cumsum(lengths) - lengths)
    index_R: Ints = np.repeat(shifts, lengths) + np.arange(lengths.sum())
    return index_R


def _validate(
    layer: int,
    slots: Sequence[Sequence[int]],
    weights: Sequence[Sequence[float]],
    num_experts: int,
) -> None:
    shape = [len(rank_slots) for rank_slots in slots]
    if [len(rank_weights) for rank_weights in weights] != shape:
        raise ValueError(
            f"layer {layer}: slots and weights have different shapes; expected {shape}"
        )
    total = [0.0] * num_experts
    for rank, (rank_slots, rank_weights) in enumerate(zip(slots, weights, strict=True)):
        for expert, weight in zip(rank_slots, rank_weights, strict=True):
            if not 0 <= expert < num_experts:
                raise ValueError(
                    f"layer {layer}: rank {rank} holds expert {expert}, the model has"
                    f" {num_experts} experts (0 to {num_experts - 1})"
                )
            if not 0 <= weight < float("inf"):
                raise ValueError(
                    f"layer {layer}: rank {rank} gives expert {expert} the weight {weight};"
                    " weights are finite and not negative"
                )
            total[expert] += weight
    homeless = [expert for expert in range(num_experts) if total[expert] <= 0]
    if homeless:
        raise ValueError(
            f"layer {layer}: {len(homeless)} of {num_experts} experts have no replica with a"
            f" weight above 0, the first is expert {homeless[0]}; the plan must place them all"
        )


def _replicas(
    slots: Sequence[Sequence[int]], weights: Sequence[Sequence[float]], num_experts: int
) -> tuple[Ints, Ints]:
    """-> replicas_EM (slot of each replica) and thresholds_EM (the draw at which each ends).

    Replicas without weight are left out, so that rounding can never choose one; the last
    threshold is above every draw.
    """
    held: list[list[tuple[int, float]]] = [[] for _ in range(num_experts)]
    flat = [pair for pairs in zip(slots, weights, strict=True) for pair in zip(*pairs, strict=True)]
    for slot, (expert, weight) in enumerate(flat):
        if weight > 0:
            held[expert].append((slot, weight))
    width = max(len(replicas) for replicas in held)
    replicas_EM = np.zeros((num_experts, width), dtype=np.int64)
    thresholds_EM = np.full((num_experts, width), 2**_DRAW_BITS, dtype=np.int64)
    for expert, replicas in enumerate(held):
        shares = np.cumsum([weight for _, weight in replicas])
        replicas_EM[expert, : len(replicas)] = [slot for slot, _ in replicas]
        ends = np.rint(shares / shares[-1] * 2**_DRAW_BITS).astype(np.int64)
        thresholds_EM[expert, : len(replicas)] = ends
    return replicas_EM, thresholds_EM
