"""`moe_serve --check`: what would run and whether it fits, without torch and without a device.

What this version cannot serve yet is priced like the rest, and said.
"""

import sys
from typing import Any

from moe_serve.check_report import CheckReport, print_report
from moe_serve.config.resolve import choices, resolve
from moe_serve.config.tree import Config, ModelConfig, PoolConfig
from moe_serve.config.unserved import unserved
from moe_serve.config.validate import DEMO
from moe_serve.control.host import gpu_memory, host_memory, memory_share, threads_per_rank
from moe_serve.control.model_json import read_model_json
from moe_serve.control.phases import plan_phases
from moe_serve.control.world import LaunchedWorld
from moe_serve.demo_config import demo_config
from moe_serve.errors import ConfigError


def check(config: Config, world: LaunchedWorld, *, as_json: bool) -> int:
    """Print the report from rank 0.

    Raises:
        PlacementError: the plan does not fit; the report is printed all the same.
        MoeServeError: whatever else keeps the config from being resolved.
    """
    if world.rank > 0:
        return 0
    num_local_ranks = world.local_size if world.is_launched else config.num_ranks
    model_json = _model_json(config.models[0])
    resolved = resolve(config, model_json, threads_per_rank(num_local_ranks))
    device_bytes = [
        count
        for index, pool in enumerate(config.pools)
        for count in [_device_bytes(index, pool, num_local_ranks)] * pool.ranks
    ]
    resolved, deployment = plan_phases(resolved, model_json, device_bytes)
    later = (*unserved(resolved), *deployment.unserved)
    report = CheckReport(resolved, deployment, tuple(choices(config, resolved)), later)
    if as_json:
        sys.stdout.write(report.to_json() + "\n")
    else:
        print_report(report, sys.stdout)
    sys.stdout.flush()
    deployment.require_fit()
    return 0


def _model_json(model: ModelConfig) -> dict[str, Any]:
    """The demo's is known before its files are made, which needs torch."""
    return demo_config() if model.path == DEMO else read_model_json(model)


def _device_bytes(index: int, pool: PoolConfig, num_local_ranks: int) -> int:
    """What one rank of the pool may use: as declared, else of this host's devices."""
    if pool.memory:
        return pool.memory
    found: int | None = None
    if pool.device == "cpu":
        found = host_memory()
    elif pool.device == "cuda":
        found = gpu_memory()
    if found is None:
        raise ConfigError(
            f"pools[{index}].memory: this host shows no {pool.device} device to ask; "
            "declare what each rank may use, e.g. memory: 80GiB"
        )
    return memory_share(found, pool.device, num_local_ranks)
