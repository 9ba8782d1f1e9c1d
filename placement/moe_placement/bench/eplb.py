"""EPLB, the balancer that DeepSeek published and most engines run: the baseline of the benchmarks.

Written from its description in https://github.com/deepseek-ai/EPLB (README, "The Algorithm"):
equal counts on equal devices, replicas that share evenly, no regard for what was there before.
"""

import numpy as np

from moe_placement.load.trace import Floats, Ints, LoadError
from moe_placement.solver.problem import ExpertPlacement


def place_with_eplb(
    rows_LE: Floats, *, num_slots: int, num_ranks: int, num_groups: int = 1, num_nodes: int = 1
) -> ExpertPlacement:
    """Place experts and replicas as EPLB does.

    Where the groups divide evenly over the nodes: groups are packed on nodes, replicas made within
    each node, and packed on its ranks. Otherwise all ranks are as one node.

    Raises:
        LoadError: counts that do not divide evenly, which EPLB cannot do.
    """
    num_experts = rows_LE.shape[1]
    _check_even("slots", num_slots, "ranks", num_ranks)
    _check_even("ranks", num_ranks, "nodes", num_nodes)
    if num_slots < num_experts:
        raise LoadError(f"{num_slots} slots cannot hold {num_experts} experts")
    if num_groups % num_nodes:
        num_groups = num_nodes = 1
    _check_even("experts", num_experts, "groups", num_groups)
    expert_XE = _experts_of_nodes(rows_LE, num_groups, num_nodes)
    rows_XE = np.take_along_axis(np.repeat(rows_LE, num_nodes, axis=0), expert_XE, axis=1)
    local_XS, count_XE = _replicate(rows_XE, num_slots // num_nodes)
    share_XS = 1.0 / np.take_along_axis(count_XE, local_XS, axis=1)
    load_XS = np.take_along_axis(rows_XE, local_XS, axis=1) * share_XS
    order_XS = _in_packs(load_XS, num_ranks // num_nodes)
    expert_XS = np.take_along_axis(expert_XE, local_XS, axis=1)
    rank_S = np.repeat(np.arange(num_ranks), num_slots // num_ranks)
    shape = (len(rows_LE), num_slots)
    return ExpertPlacement(
        expert_LS=np.take_along_axis(expert_XS, order_XS, axis=1).reshape(shape),
        rank_LS=np.broadcast_to(rank_S, shape).copy(),
        weight_LS=np.take_along_axis(share_XS, order_XS, axis=1).reshape(shape),
    )


def _check_even(what: str, count: int, over: str, parts: int) -> None:
    if parts < 1 or count % parts:
        raise LoadError(f"{count} {what} do not divide evenly over {parts} {over}")


def _experts_of_nodes(rows_LE: Floats, num_groups: int, num_nodes: int) -> Ints:
    """(layers * nodes, experts of a node): whole groups, as evenly loaded as packing makes them."""
    num_layers, num_experts = rows_LE.shape
    group_size = num_experts // num_groups
    group_LG = _in_packs(rows_LE.reshape(num_layers, num_groups, group_size).sum(axis=2), num_nodes)
    expert_LGE: Ints = group_LG[:, :, None] * group_size + np.arange(group_size)
    return expert_LGE.reshape(num_layers * num_nodes, num_experts // num_nodes)


def _replicate(rows_XE: Floats, num_slots: int) -> tuple[Ints, Ints]:
    """One more replica at a time, for the expert whose replicas have most to do.

    Returns:
        the expert of each slot, and the replicas of each expert.
    """
    lines, num_experts = np.arange(len(rows_XE)), rows_XE.shape[1]
    count_XE = np.ones(rows_XE.shape, np.int64)
    expert_XS = np.empty((len(rows_XE), num_slots), np.int64)
    expert_XS[:, :num_experts] = np.arange(num_experts)
    for slot in range(num_experts, num_slots):
        busiest_X = np.argmax(rows_XE / count_XE, axis=1)
        expert_XS[:, slot] = busiest_X
        count_XE[lines, busiest_X] += 1
    return expert_XS, count_XE


def _in_packs(load_XI: Floats, num_packs: int) -> Ints:
    """Items in the order of their packs, all of one size: the largest first, each into the least
    loaded pack that has room."""
    num_lines, num_items = load_XI.shape
    lines, size = np.arange(num_lines), num_items // num_packs
    if size == 1:
        return np.tile(np.arange(num_items), (num_lines, 1))
    packed_XP = np.zeros((num_lines, num_packs))
    filled_XP = np.zeros((num_lines, num_packs), np.int64)
    order_XI = np.empty((num_lines, num_items), np.int64)
    for item_X in np.argsort(-load_XI, axis=1, kind="stable").T:
        pack_X = np.argmin(np.where(filled_XP < size, packed_XP, np.inf), axis=1)
        order_XI[lines, pack_X * size + filled_XP[lines, pack_X]] = item_X
        packed_XP[lines, pack_X] += load_XI[lines, item_X]
        filled_XP[lines, pack_X] += 1
    return order_XI
