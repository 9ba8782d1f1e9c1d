"""The tenants of a moe_serve config as slices beside those that span its ranks, and back again.

Only the keys that packing needs are looked at; moe_serve itself checks all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.hardware.section import Section
from moe_placement.model.names import served_name
from moe_placement.packing.known_devices import taking
from moe_placement.packing.serve_models import ServeModel, read_model
from moe_placement.packing.serve_ranks import read_ranks
from moe_placement.packing.slices import PackDevice, PackItem

# What a tenant counts for that says no share; its own is then a part of what is left.
LEAST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class ServeTenants:
    """Attributes:
    items: the tenants that are on one rank.
    devices: the ranks, with what the tenants that span all of them take.
    unsaid: the items that say no share of compute.
    num_spanning_unsaid: spanning tenants that say none.
    """

    items: tuple[PackItem, ...]
    devices: tuple[PackDevice, ...]
    unsaid: frozenset[str]
    num_spanning_unsaid: int


def read_tenants(document: Section, cluster: ClusterSpec | None) -> ServeTenants:
    """What a config asks to be packed.

    Args:
        cluster: what the ranks' devices are, instead of what the pools say.

    Raises:
        HardwareError: names the file, the key, the value and the fix.
    """
    ranks = read_ranks(document, cluster)
    sections = document.sections("models")
    if not sections:
        raise document.error("models is missing; list the models that are served side by side")
    models = [read_model(section, ranks, number == 0) for number, section in enumerate(sections)]
    local = [model for model in models if not model.spans]
    if not local:
        raise document.error(
            "models: all of them span all ranks, so there is nothing to pack; write spread: one "
            "for a model that shall be on one"
        )
    spanning = [model for model in models if model.spans]
    return ServeTenants(
        items=tuple(_item(model, ranks.devices) for model in local),
        devices=tuple(_beside(spanning, ranks.devices)),
        unsaid=frozenset(model.name for model in local if not model.compute),
        num_spanning_unsaid=sum(not model.compute for model in spanning),
    )


def placed_config(config: Mapping[str, Any], rank_of: Mapping[str, int]) -> dict[str, Any]:
    """The config with `spread: one` and its rank for every model that was packed, by name."""
    models = []
    for model in config["models"]:
        name = served_name(str(model["path"]), str(model.get("name") or ""))
        chosen = {"spread": "one", "rank": rank_of[name]} if name in rank_of else {}
        models.append(model | chosen)
    return {**config, "models": models}


def _item(model: ServeModel, devices: Sequence[PackDevice]) -> PackItem:
    return PackItem(
        name=model.name,
        compute=model.compute or LEAST_SHARE,
        memory=model.memory[0],
        allowed=None if model.rank < 0 else (devices[model.rank].name,),
        hard=model.hard,
        at_once=model.at_once,
    )


def _beside(spanning: Sequence[ServeModel], devices: Sequence[PackDevice]) -> list[PackDevice]:
    """The devices with what is taken of each."""
    found = list(devices)
    for model in spanning:
        found = [
            taking(device, model.compute or LEAST_SHARE, memory)
            for device, memory in zip(found, model.memory, strict=True)
        ]
    return found
