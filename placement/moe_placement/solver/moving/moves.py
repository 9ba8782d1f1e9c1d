"""What must be loaded to get from one placement to another."""

import numpy as np

from moe_placement.solver.problem import ExpertPlacement, Floats, Ints


def replicas(placement: ExpertPlacement) -> Ints:
    """Each (layer, expert, rank) that holds weights, once and in that order.

    Returns:
        (replicas, 3); two slots of one rank with the same expert are one.
    """
    layer_X, slot_X = np.nonzero(placement.expert_LS >= 0)
    expert_X = placement.expert_LS[layer_X, slot_X]
    return np.unique(np.stack([layer_X, expert_X, placement.rank_LS[layer_X, slot_X]], 1), axis=0)


def added(old: ExpertPlacement, new: ExpertPlacement) -> Ints:
    """The (layer, expert, rank) of the new placement that the old one has not; (replicas, 3)."""
    old_X3, new_X3 = replicas(old), replicas(new)
    size_3 = np.maximum(old_X3.max(axis=0, initial=0), new_X3.max(axis=0, initial=0)) + 1
    is_held = np.isin(_keys(new_X3, size_3), _keys(old_X3, size_3), assume_unique=True)
    return new_X3[~is_held]


def moved_bytes(old: ExpertPlacement, new: ExpertPlacement, expert_bytes_N: Floats) -> float:
    """Bytes of experts that ranks must load to get from the old placement to the new one."""
    return float(expert_bytes_N[added(old, new)[:, 2]].sum())


def _keys(replica_X3: Ints, size_3: Ints) -> Ints:
    keys: Ints = np.ravel_multi_index(tuple(replica_X3.T), tuple(size_3))
    return keys
