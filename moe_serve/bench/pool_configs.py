"""The deployments that the pools benchmark compares, as config files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

_LINK = {"bandwidth": "10GB/s", "latency": "100us"}
_PAGES_PER_SEQUENCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPool:
    """One pool of one rank.

    Attributes:
        hardware: a device file.
    """

    name: str
    device: str
    hardware: Path
    role: str = "experts"
    weights: str = "auto"

    def entry(self, memory: str) -> dict[str, Any]:
        return {
            "name": self.name,
            "device": self.device,
            "role": self.role,
            "hardware": str(self.hardware),
            "weights": self.weights,
            "memory": memory,
            "threads": 1,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What all deployments of one table compute.

    Attributes:
        model: a checkpoint directory.
        num_sequences: tokens of each step, in which every sequence decodes.
    """

    model: Path
    num_sequences: int
    num_steps: int
    time_scale: float = 1.0


def write_config(
    path: Path, pools: Sequence[BenchPool], work: Workload, placement: Mapping[str, Any]
) -> None:
    """A config for one rank in each pool, every two pools joined by a link."""
    homes = sum(pool.role != "experts" for pool in pools)
    document = {
        "model": {"path": str(work.model), "name": "bench", "dtype": "float32"},
        "pools": [pool.entry("2GiB") for pool in pools],
        "links": [
            {"between": [one.name, other.name], **_LINK} for one, other in combinations(pools, 2)
        ],
        "placement": dict(placement),
        "emulation": {"time_scale": work.time_scale},
        "scheduler": {
            "max_tokens_per_step": work.num_sequences,
            "max_sequences": work.num_sequences // homes,
        },
        "cache": {"page_size": 16, "num_pages": work.num_sequences * _PAGES_PER_SEQUENCE},
    }
    path.write_text(yaml.safe_dump(document))
