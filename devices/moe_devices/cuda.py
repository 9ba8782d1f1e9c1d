"""An NVIDIA GPU as a device."""

from collections.abc import Callable, Sequence

import torch

from moe_devices.device import Memory
from moe_devices.errors import DeviceError
from moe_devices.green_contexts import split_processors
from moe_devices.memory_cap import share_of_memory
from moe_devices.pacer import Pacer, RealTime
from moe_devices.partition import Partition
from moe_devices.work import Pace


class CudaDevice:
    """One GPU; opening it makes it this process's current one.

    Raises:
        DeviceError: there is no GPU of this index.
    """

    kind = "cuda"
    collective = "nccl"
    lends_memory = False

    def __init__(self, index: int) -> None:
        count = torch.cuda.device_count()
        if not 0 <= index < count:
            raise DeviceError(
                f"no GPU {index}: torch {torch.__version__} sees {count}; "
                "start fewer ranks on this host or set the pool's device to cpu"
            )
        self._device = torch.device("cuda", index)
        torch.accelerator.set_device_index(index)

    @property
    def torch_device(self) -> torch.device:
        return self._device

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(self._device)

    def memory(self) -> Memory:
        free, total = torch.cuda.mem_get_info(self._device)
        return Memory(total=total, free=free)

    def pacer(self, pace: Callable[[], Pace]) -> Pacer:
        return RealTime()

    @property
    def held_memory(self) -> int:
        return torch.cuda.memory_reserved(self.torch_device)

    def release_memory(self) -> None:
        torch.cuda.empty_cache()

    def cap_memory(self, num_bytes: int, virtual_slack: int = 0) -> str:
        """Torch's allocator takes whole segments of 2 MiB for small tensors and 20 MiB for others:
        it never holds more than the cap, and may refuse up to 22 MiB below it. What the driver,
        NCCL and kernels take besides, some hundred MiB, does not pass through it."""
        total, held = self.memory().total, torch.cuda.memory_reserved(self._device)
        share = share_of_memory(num_bytes, total, held)
        torch.cuda.set_per_process_memory_fraction(share, self._device)
        return f"{share:.2%} of {self.name} at most: an error for who asks for more"

    def partition(self, percents: Sequence[int]) -> Sequence[Partition]:
        return split_processors(self._device.index, percents)
