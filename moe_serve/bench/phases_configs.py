"""The deployments that the phases benchmark compares: the same two ranks, together and apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from moe_placement.hardware.device import DeviceSpec, ExpertCurve, Plane
from moe_placement.hardware.device_file import device_text

from moe_serve.bench.pool_configs import BenchPool

# Ranks by role.
DEPLOYMENTS: Mapping[str, Mapping[str, int]] = {
    "together": {"both": 2},
    "apart": {"prefill": 1, "decode": 1},
}
NUM_RANKS = 2
_PAGE_SIZE = 16
_PAGES = 2048
_MEMORY = "1GiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasesServer:
    """What all deployments have alike.

    Attributes:
        model: a checkpoint directory.
        hardware: a device file, of the ranks' emulated devices.
        chunk: tokens of one step of one rank.
        max_local_prefill: longer prompts are computed by the prefill rank, where there is one.
    """

    model: Path
    hardware: Path
    time_scale: float
    chunk: int
    max_local_prefill: int

    def document(self, deployment: str) -> dict[str, Any]:
        """A config."""
        roles = DEPLOYMENTS[deployment]
        link = {"between": list(roles), "bandwidth": "10GB/s", "latency": "10us"}
        return {
            "model": {"path": str(self.model), "name": "bench", "dtype": "float32"},
            "pools": [self._pool(role, ranks) for role, ranks in roles.items()],
            "links": [link] if len(roles) > 1 else [],
            "emulation": {"time_scale": self.time_scale},
            "scheduler": {
                "max_tokens_per_step": self.chunk,
                "max_sequences": 32,
                "max_local_prefill": self.max_local_prefill,
            },
            "cache": {"page_size": _PAGE_SIZE, "num_pages": _PAGES},
            "server": {"port": 0},
        }

    def write(self, deployment: str, path: Path) -> None:
        path.write_text(yaml.safe_dump(self.document(deployment)))

    def _pool(self, role: str, ranks: int) -> dict[str, Any]:
        pool = BenchPool(name=role, device="emulated", hardware=self.hardware, role=role)
        return pool.entry(_MEMORY) | {"ranks": ranks}


def write_device(path: Path) -> None:
    """A device that decodes with two layers of the demo in 7 ms, and computes 128 tokens in 45 ms.

    Nothing that it does takes so little that the processor could not do it in the time.
    """
    curve = ExpertCurve(
        (
            Plane(fixed=3e-3, per_byte=6e-10, per_flop=0.0),
            Plane(fixed=3e-3, per_byte=0.0, per_flop=7.2e-10),
        )
    )
    device = DeviceSpec(
        name=path.stem,
        kind="cuda",
        flops={"float32": 5e9, "bfloat16": 5e9},
        memory_bytes=1 << 30,
        bandwidth=5e8,
        link_bandwidth=1e11,
        link_latency=1e-6,
        network_bandwidth=1e10,
        network_latency=1e-5,
        curves={"float32": curve},
    )
    path.write_text(device_text(device))
