"""`moe_serve --check`: what would run and whether it fits, without torch and without a device.

What this version cannot serve yet is priced like the rest, and said.
"""

import sys
from collections.abc import Sequence

from moe_serve.check_report import CheckReport, print_report
from moe_serve.check_slices import SlicesReport, print_slices
from moe_serve.config.resolve import choices, resolve
from moe_serve.config.tree import Config, PoolConfig
from moe_serve.config.unserved import unserved
from moe_serve.control.meeting.host import (
    cores_per_rank,
    gpu_memory,
    host_memory,
    memory_share,
    threads_per_rank,
)
from moe_serve.control.meeting.world import LaunchedWorld
from moe_serve.control.planning.hardware import declared_memory
from moe_serve.control.planning.phases import plan_phases
from moe_serve.errors import ConfigError
from moe_serve.published import published_json


def check(config: Config, world: LaunchedWorld, *, as_json: bool) -> int:
    """Print the report from rank 0.

    Raises:
        PlacementError: the plan does not fit; the report is printed all the same.
        MoeServeError: whatever else keeps the config from being resolved.
    """
    if world.rank > 0:
        return 0
    num_local_ranks = world.local_size if world.is_launched else config.num_ranks
    device_bytes = [
        count
        for index, (pool, declared) in enumerate(
            zip(config.pools, declared_memory(config), strict=True)
        )
        for count in [declared or _device_bytes(index, pool, num_local_ranks)] * pool.ranks
    ]
    if config.has_slices:
        _check_slices(config, device_bytes, cores_per_rank(num_local_ranks), as_json=as_json)
    else:
        _check_model(config, device_bytes, threads_per_rank(num_local_ranks), as_json=as_json)
    return 0


def _check_model(
    config: Config, device_bytes: Sequence[int], threads: int, *, as_json: bool
) -> None:
    model_json = published_json(config.models[0])
    resolved = resolve(config, model_json, threads)
    resolved, deployment = plan_phases(resolved, model_json, device_bytes)
    later = (*unserved(resolved), *deployment.unserved)
    report = CheckReport(resolved, deployment, tuple(choices(config, resolved)), later)
    if as_json:
        sys.stdout.write(report.to_json() + "\n")
    else:
        print_report(report, sys.stdout)
    sys.stdout.flush()
    deployment.require_fit()


def _check_slices(
    config: Config, device_bytes: Sequence[int], num_cores: int, *, as_json: bool
) -> None:
    report = SlicesReport.of(config, device_bytes, num_cores)
    if as_json:
        sys.stdout.write(report.to_json() + "\n")
    else:
        print_slices(report, sys.stdout)
    sys.stdout.flush()
    report.require_fit()


def _device_bytes(index: int, pool: PoolConfig, num_local_ranks: int) -> int:
    """What one rank of the pool may use of this host's devices."""
    found: int | None = None
    if pool.device == "cpu":
        found = host_memory()
    elif pool.device == "cuda":
        found = gpu_memory()
    if found is None:
        raise ConfigError(
            f"pools[{index}].memory: this host shows no memory of {pool.device} devices; "
            "declare what each rank may use, e.g. memory: 80GiB"
        )
    return memory_share(found, pool.device, num_local_ranks)
