"""Models brought up within their slices in this process: caches that grow, limits that hold."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from moe_serve.bring_up import meet
from moe_serve.config.tree import (
    CacheConfig,
    Config,
    ModelConfig,
    PoolConfig,
    SchedulerConfig,
    SliceConfig,
)
from moe_serve.control.meeting.world import launched_world
from moe_serve.control.planning.tenant_view import plan_slices
from moe_serve.errors import LedgerError
from moe_serve.messages import ALL_RANKS, PlacedTenant, TenantChange
from moe_serve.open_rank import open_rank
from moe_serve.tenant_loader import HostedTenant, TenantLoader

MIB = 1 << 20
# Under a limit on the process, caches that together map more than it, and one that comes later.
LENDS_UNDER_A_LIMIT = """
import sys
import torch
from moe_devices.cpu import CpuDevice
from moe_devices.resident import ResidentTensor
from moe_serve.open_rank import OpenRank
MIB = 1 << 20
torch.set_num_threads(1)
device, memory = CpuDevice(), 1024 * MIB
held_to = device.held_memory + memory
device.cap_memory(held_to, 512 * MIB)
opened = OpenRank(None, device, (memory,), held_to)
weights = torch.ones(256 * MIB, dtype=torch.uint8)
caches = []
for number in range(4):
    opened.allow_mapping(memory)
    caches.append(ResidentTensor((1024, MIB), torch.uint8))
    caches[-1].tensor[:64] = 1
print(len(caches))
opened.allow_mapping(0)
try:
    bytearray(memory + 200 * MIB)
except MemoryError:
    print("MemoryError")
opened.device.cap_memory(held_to, 0)
try:
    torch.ones(600 * MIB, dtype=torch.uint8)
except RuntimeError:
    print(torch.ones(400 * MIB, dtype=torch.uint8).numel() // MIB)
"""


@pytest.fixture
def loader_of(checkpoint: Callable[..., Path]) -> Iterator[Callable[..., TenantLoader]]:
    """loader_of(memory) -> of one rank with so many bytes, one model on it with 128 MiB of them."""
    num_threads = torch.get_num_threads()
    meetings = []

    def make(memory: int) -> tuple[TenantLoader, HostedTenant]:
        config = Config(
            models=(
                ModelConfig(
                    path=str(checkpoint("qwen3_moe")),
                    name="first",
                    dtype="float32",
                    slice=SliceConfig(compute_percent=40, memory_mb=128),
                ),
            ),
            pools=(PoolConfig(name="pool", device="cpu", threads=1, memory=memory),),
            cache=CacheConfig(page_size=16, memory_fraction=1.0),
            scheduler=SchedulerConfig(max_tokens_per_step=256),
        )
        meeting = meet(config, launched_world())
        meetings.append(meeting)
        opened = open_rank(config, meeting)
        _, slices = plan_slices(config, opened.memories)
        loader = TenantLoader(config, opened, slices)
        return loader, loader.bring_up(slices.tenants[0], "generate")

    yield make
    for meeting in meetings:
        meeting.close()
    torch.set_num_threads(num_threads)


def test_a_slice_grows_to_what_the_rank_has(loader_of: Callable[..., object]) -> None:
    _, hosted = loader_of(1024 * MIB)
    hosted.tenant.resize(512 * MIB, False)
    hosted.tenant.resize(1024 * MIB, True)
    with pytest.raises(LedgerError, match=r"MiB \(\d+ pages\) of cache asked .* has room for"):
        hosted.tenant.resize(1500 * MIB, True)


def test_a_model_that_comes_later_borrows_from_the_whole_rank(
    loader_of: Callable[..., object],
) -> None:
    loader, hosted = loader_of(1024 * MIB)
    asked = SliceConfig(compute_percent=20, memory_mb=128)
    placed = PlacedTenant(
        number=1,
        model=replace(hosted.rank.config.models[0], name="later", slice=asked),
        rank=ALL_RANKS,
        share=0.2,
        memory=128 * MIB,
    )
    tenant, _ = loader.load(TenantChange(number=1, kind="load", placed=placed))
    capacity = loader._ledger._budgets[1].limit * loader._ledger._budgets[1].page_bytes
    assert capacity > 1000 * MIB
    tenant.close()


def test_half_a_tebibyte_of_cache_that_may_be_costs_nothing(
    loader_of: Callable[..., object],
) -> None:
    """The model is tiny: of its pages there could be millions."""
    before = resident_mib()
    _, hosted = loader_of(512 << 30)
    assert resident_mib() - before < 100
    hosted.tenant.resize(1 << 30, False)


def test_caches_that_lend_are_mapped_under_a_limit_that_holds() -> None:
    command = [sys.executable, "-c", LENDS_UNDER_A_LIMIT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["4", "MemoryError", "400"], done.stderr


def resident_mib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 // MIB
