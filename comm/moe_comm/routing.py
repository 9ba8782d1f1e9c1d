"""Which replica of an expert serves a token: pure index maths, the same on every rank.

Shape legend: T tokens, K experts chosen per token, E experts, G slots of all ranks in rank order,
M replicas of the most replicated expert, N ranks, S slots here, R rows.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from moe_comm.transport.exchange import Ints

# SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_NUM_DRAWS = np.uint64(2**31)

Keys: TypeAlias = npt.NDArray[np.uint64]
Slots: TypeAlias = npt.NDArray[np.signedinteger]


def _mix(keys: Keys) -> Keys:
    keys = (keys ^ (keys >> np.uint64(30))) * _FIRST
    keys = (keys ^ (keys >> np.uint64(27))) * _SECOND
    return keys ^ (keys >> np.uint64(31))


def token_keys(token_ids_T: torch.Tensor, position_T: torch.Tensor) -> torch.Tensor:
    """-> keys_T: int64, well mixed, of token id and position alone; all on the host."""
    tokens, positions = (each.numpy().view(np.uint64) for each in (token_ids_T, position_T))
    keys_T = _mix(_mix(tokens + _GOLDEN) + positions * _GOLDEN)
    return torch.from_numpy(keys_T.view(np.int64))


class RoutingTable:
    """One layer's experts and where their replicas live, with the share that each one takes.

    Args:
        layer: the model's layer; replicas of different layers are chosen independently.
        slots: for each rank of the group, in rank order, the expert in each of its slots.
        weights: same shape; a replica takes its weight's part of its expert's total.
        num_experts: global expert ids are below this.

    Raises:
        ValueError: an expert has no replica with weight, or the arrays do not fit.
    """

    def __init__(
        self,
        layer: int,
        slots: Sequence[Sequence[int]],
        weights: Sequence[Sequence[float]],
        num_experts: int,
    ) -> None:
        _validate(layer, slots, weights, num_experts)
        self.slots_per_rank = [len(rank_slots) for rank_slots in slots]
        self.num_slots = sum(self.slots_per_rank)
        replicas_EM, self._thresholds_EM = _replicas(slots, weights, num_experts)
        # As short as the slots allow: numpy sorts 16-bit numbers by radix.
        short = np.int16 if self.num_slots < 2**15 else np.int32
        self._replicas_EM: Slots = replicas_EM.astype(short)
        self._only_replica_E = self._replicas_EM[:, 0] if replicas_EM.shape[1] == 1 else None
        self._salts_E = _mix(
            np.arange(num_experts, dtype=np.uint64) + np.uint64(layer << 32) + _GOLDEN
        )

    def choose_slots(self, ids_TK: Ints, keys_T: Keys) -> Slots:
        """-> slot_TK of the replica that serves each token's expert: its index among the slots of
        all ranks, in rank order.

        Depends on layer, expert, token id and position (by the token's key) and nothing else; a
        replica is chosen in proportion to its weight.
        """
        if self._only_replica_E is not None:
            return self._only_replica_E[ids_TK]
        draw_TK = _mix(keys_T[:, None] ^ self._salts_E[ids_TK]) % _NUM_DRAWS
        replica_TK: Ints = (draw_TK[..., None] >= self._thresholds_EM[ids_TK]).sum(-1)
        return self._replicas_EM[ids_TK, replica_TK]


def rows_per_rank(slot_counts_G: Ints, slots_per_rank: Sequence[int]) -> list[int]:
    """Rows for each rank, given those for each slot of all ranks."""
    counts = slot_counts_G.tolist()
    return [
        sum(counts[first:end]) for first, end in pairwise(accumulate(slots_per_rank, initial=0))
    ]


def slot_order(counts_NS: Ints) -> Ints:
    """-> index_R that takes rows sorted by (sender, slot) into the order (slot, sender)."""
    slots = (np.arange(counts_NS.size) % max(1, counts_NS.shape[1])).astype(np.int16)
    index_R: Ints = slots.repeat(counts_NS.ravel()).argsort(kind="stable")
    return index_R


def inverse_order(index_R: Ints) -> Ints:
    """-> index_R that undoes the given one."""
    inverse_R = np.empty_like(index_R)
    inverse_R[index_R] = np.arange(len(index_R))
    return inverse_R


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
) -> tuple[Ints, Keys]:
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
    thresholds_EM = np.full((num_experts, width), _NUM_DRAWS, dtype=np.uint64)
    for expert, replicas in enumerate(held):
        shares = np.cumsum([weight for _, weight in replicas])
        replicas_EM[expert, : len(replicas)] = [slot for slot, _ in replicas]
        thresholds_EM[expert, : len(replicas)] = np.rint(shares / shares[-1] * float(_NUM_DRAWS))
    return replicas_EM, thresholds_EM
