"""The three arrays of EPLB's `rebalance_experts`, as .npz or JSON.

As https://github.com/deepseek-ai/EPLB returns them, under the names of its source: `phy2log`
(layers, slots), the expert of each slot, ranks in order with as many each; `log2phy` (layers,
experts, most replicas), the slots of each expert, -1 where it has fewer; `logcnt` (layers,
experts), its replicas. The first alone says it all; the others are checked against it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moe_placement.load.formats.dump import counts, read_dump
from moe_placement.load.formats.slot_lists import plans_of_slots, slots_of_plans
from moe_placement.load.trace import Ints, LoadError
from moe_placement.plan import LayerPlan, PlanError


def read_eplb_arrays(
    path: Path, *, num_ranks: int, layers: Sequence[int] | None = None
) -> dict[int, LayerPlan]:
    """Read a placement.

    Args:
        num_ranks: ranks of the EP group, which the arrays do not say.
        layers: the model's own numbers of its MoE layers, which they have not.

    Raises:
        PlanError: names the file and the array.
    """
    try:
        dump = read_dump(path)
        expert_LS = counts(dump, "phy2log", (2,))
        if num_ranks < 1 or expert_LS.shape[1] % num_ranks:
            raise PlanError(f"{expert_LS.shape[1]} slots do not divide over {num_ranks} ranks")
        numbers = range(len(expert_LS)) if layers is None else layers
        plans = plans_of_slots(expert_LS.reshape(len(expert_LS), num_ranks, -1), numbers)
        slot_LER, count_LE = _by_expert(expert_LS)
        if "logcnt" in dump and not np.array_equal(counts(dump, "logcnt", (2,)), count_LE):
            raise PlanError("logcnt does not count the replicas of phy2log")
        if "log2phy" in dump:
            _check_slots(counts(dump, "log2phy", (3,)), slot_LER)
        return plans
    except (PlanError, LoadError) as error:
        raise PlanError(f"{path}: {error}") from error


def write_eplb_arrays(path: Path, plans: Mapping[int, LayerPlan]) -> str:
    """Write a placement: .npz by its ending, or else JSON.

    Returns:
        what the arrays cannot say, for people; empty where nothing is lost.

    Raises:
        PlanError: ranks hold unequal numbers of experts.
    """
    expert_LNS, warning = slots_of_plans(plans, "EPLB's arrays")
    expert_LS = expert_LNS.reshape(len(expert_LNS), -1)
    slot_LER, count_LE = _by_expert(expert_LS)
    arrays: dict[str, Any] = {"phy2log": expert_LS, "log2phy": slot_LER, "logcnt": count_LE}
    if path.suffix == ".npz":
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)
    else:
        lists = {name: array.tolist() for name, array in arrays.items()}
        path.write_text(json.dumps(lists) + "\n", encoding="utf-8")
    return warning


def _by_expert(expert_LS: Ints) -> tuple[Ints, Ints]:
    """The slots of each expert, -1 after the last, and how many they are."""
    num_layers, num_slots = expert_LS.shape
    num_experts = int(expert_LS.max()) + 1
    lines = expert_LS + np.arange(num_layers)[:, None] * num_experts
    count_X = np.bincount(lines.ravel(), minlength=num_layers * num_experts)
    order_Y = np.argsort(lines.ravel(), kind="stable")
    expert_Y = lines.ravel()[order_Y]
    replica_Y = np.arange(len(order_Y)) - (np.cumsum(count_X) - count_X)[expert_Y]
    slot_XR = np.full((len(count_X), int(count_X.max())), -1, np.int64)
    slot_XR[expert_Y, replica_Y] = order_Y % num_slots
    shape = (num_layers, num_experts)
    return slot_XR.reshape(*shape, -1), count_X.reshape(shape)


def _check_slots(given_LER: Ints, slot_LER: Ints) -> None:
    """EPLB lists an expert's slots in the order it made them; more columns of -1 do no harm."""
    width = max(given_LER.shape[2], slot_LER.shape[2])
    given, right = (
        np.sort(np.pad(each, ((0, 0), (0, 0), (0, width - each.shape[2])), constant_values=-1))
        for each in (given_LER, slot_LER)
    )
    if not np.array_equal(given, right):
        raise PlanError("log2phy does not list the slots of phy2log")
