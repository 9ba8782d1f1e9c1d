"""Process groups of torch.distributed that stand for themselves.

Torch's own default group is one for each process, and every other one is made from it, by all of
its ranks. Here a rank may be in several groups, none of which knows of another.
"""

from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Backend, Store


def make_process_group(
    backend: str, store: Store, rank: int, size: int, device: torch.device, timeout: timedelta
) -> dist.ProcessGroup:
    """Gloo and NCCL; another backend, as HCCL, becomes torch's default group, and so can be the
    backend of one group in a process.

    Args:
        store: of this group alone.
        timeout: of each collective.
    """
    if backend == "gloo":
        gloo = dist.ProcessGroupGloo(store, rank, size, timeout)
        return _wrap(gloo, dist.ProcessGroup.BackendType.GLOO, store, device)
    if backend == "nccl":
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = timeout
        nccl = dist.ProcessGroupNCCL(store, rank, size, options)
        nccl.eager_connect_single_device(device)
        return _wrap(nccl, dist.ProcessGroup.BackendType.NCCL, store, device)
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=timeout, device_id=device
    )
    default = dist.group.WORLD
    assert default is not None
    return default


def close_process_group(group: dist.ProcessGroup) -> None:
    """Let go of its connections; nothing may be under way."""
    if group is dist.group.WORLD:
        dist.destroy_process_group()
    else:
        group.shutdown()


def _wrap(
    backend: Backend,
    kind: dist.ProcessGroup.BackendType,
    store: Store,
    device: torch.device,
) -> dist.ProcessGroup:
    backend._set_sequence_number_for_group()
    group = dist.ProcessGroup(store, backend.rank(), backend.size())
    group._set_default_backend(kind)
    group._register_backend(device, kind, backend)
    return group
