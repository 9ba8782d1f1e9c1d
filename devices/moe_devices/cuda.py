"""An NVIDIA GPU as a device."""

from collections.abc import Callable

import torch

from moe_devices.device import Memory
from moe_devices.errors import DeviceError
from moe_devices.pacer import Pacer, RealTime
from moe_devices.work import Pace


class CudaDevice:
    """One GPU; opening it makes it this process's current one.

    Raises:
        DeviceError: there is no GPU of this index.
    """

    kind = "cuda"
    collective = "nccl"

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
