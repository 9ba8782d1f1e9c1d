"""The placements that are in force while experts move from one to another."""

from collections.abc import Iterable

import numpy as np

from moe_placement.plan_diff import Move
from moe_placement.solver.problem import ExpertPlacement, Floats, Ints

_Key = tuple[int, int, int]
# A share below it is rounding.
_NO_SHARE = 1e-9


def placement_after(
    old: ExpertPlacement, new: ExpertPlacement, moves: Iterable[Move]
) -> ExpertPlacement:
    """The placement on the way from old to new when these moves are done.

    Replicas that are there take their new weights. What an expert's coming replicas are to take
    stays with those that will leave; where none is left, all there take more in proportion. One
    that has nothing more to take is left out, though its weights may still lie in its slot.
    """
    new_weights, old_weights = _weights(new), _weights(old)
    held = set(old_weights)
    for move in moves:
        key = (move.layer, move.expert, move.rank)
        if move.kind == "add":
            held.add(key)
        else:
            held.remove(key)
    keys = sorted(held, key=lambda key: (key[0], key[2], key[1]))
    stays_X = np.array([new_weights.get(key, 0.0) for key in keys])
    leaves_X = np.array([0.0 if key in new_weights else old_weights[key] for key in keys])
    key_X3 = np.array(keys, np.int64)
    return _assemble(key_X3, _shares(key_X3, stays_X, leaves_X), len(old.expert_LS))


def _weights(placement: ExpertPlacement) -> dict[_Key, float]:
    """The share of each (layer, expert, rank) that holds weights."""
    layer_X, slot_X = np.nonzero(placement.expert_LS >= 0)
    weights: dict[_Key, float] = {}
    for layer, expert, rank, weight in zip(
        layer_X.tolist(),
        placement.expert_LS[layer_X, slot_X].tolist(),
        placement.rank_LS[layer_X, slot_X].tolist(),
        placement.weight_LS[layer_X, slot_X].tolist(),
        strict=True,
    ):
        weights[layer, expert, rank] = weights.get((layer, expert, rank), 0.0) + weight
    return weights


def _shares(key_X3: Ints, stays_X: Floats, leaves_X: Floats) -> Floats:
    """Shares that sum to 1 for each expert."""
    expert_X = np.unique(key_X3[:, :2], axis=0, return_inverse=True)[1].reshape(-1)
    stays_E = np.bincount(expert_X, weights=stays_X)
    leaves_E = np.bincount(expert_X, weights=leaves_X)
    to_come_E = np.where(leaves_E > 0, np.maximum(1.0 - stays_E, 0.0), 0.0)
    to_come_E[to_come_E < _NO_SHARE] = 0.0
    share_X = stays_X + (to_come_E / np.maximum(leaves_E, 1e-300))[expert_X] * leaves_X
    shares_X: Floats = share_X / np.bincount(expert_X, weights=share_X)[expert_X]
    return shares_X


def _assemble(key_X3: Ints, share_X: Floats, num_layers: int) -> ExpertPlacement:
    """Slots of each layer in the order given; layers with fewer end in empty ones."""
    key_X3, share_X = key_X3[share_X > 0], share_X[share_X > 0]
    layer_X = key_X3[:, 0]
    count_L = np.bincount(layer_X, minlength=num_layers)
    slot_X = np.arange(len(layer_X)) - (np.cumsum(count_L) - count_L)[layer_X]
    shape = (num_layers, int(count_L.max()))
    expert_LS, rank_LS, weight_LS = np.full(shape, -1), np.zeros(shape, int), np.zeros(shape)
    expert_LS[layer_X, slot_X] = key_X3[:, 1]
    rank_LS[layer_X, slot_X] = key_X3[:, 2]
    weight_LS[layer_X, slot_X] = share_X
    return ExpertPlacement(expert_LS=expert_LS, rank_LS=rank_LS, weight_LS=weight_LS)
