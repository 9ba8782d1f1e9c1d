"""What GPUs and NPUs have in common: one device behind torch's module for its kind."""

from collections.abc import Callable
from typing import Any

import torch

from moe_devices.device import Memory
from moe_devices.errors import DeviceError
from moe_devices.memory_cap import share_of_memory
from moe_devices.pacer import Pacer, RealTime
from moe_devices.work import Pace


class Accelerator:
    """Implements Device but for `partition`; opening it makes it this process's current one.

    Args:
        module: torch.cuda, or one of the same functions.
        index: among the devices of the kind.

    Raises:
        DeviceError: there is no device of this index.
    """

    kind: str
    collective: str
    common_name: str
    lends_memory = False

    def __init__(self, module: Any, index: int) -> None:
        count = module.device_count()
        if not 0 <= index < count:
            raise DeviceError(
                f"no {self.common_name} {index}: torch {torch.__version__} sees {count}; "
                "start fewer ranks on this host or set the pool's device to cpu"
            )
        self._module = module
        self._device = torch.device(self.kind, index)
        module.set_device(index)

    @property
    def torch_device(self) -> torch.device:
        return self._device

    @property
    def name(self) -> str:
        return str(self._module.get_device_name(self._device))

    def memory(self) -> Memory:
        free, total = self._module.mem_get_info(self._device)
        return Memory(total=total, free=free)

    def pacer(self, pace: Callable[[], Pace]) -> Pacer:
        return RealTime()

    @property
    def held_memory(self) -> int:
        return int(self._module.memory_reserved(self._device))

    def release_memory(self) -> None:
        self._module.empty_cache()

    def cap_memory(self, num_bytes: int, virtual_slack: int = 0) -> str:
        """Torch's allocator takes whole segments of 2 MiB for small tensors and 20 MiB for others:
        it never holds more than the cap, and may refuse up to 22 MiB below it. What the driver,
        collectives and kernels take besides, some hundred MiB, does not pass through it."""
        share = share_of_memory(num_bytes, self.memory().total, self.held_memory)
        self._module.set_per_process_memory_fraction(share, self._device)
        return f"{share:.2%} of {self.name} at most: an error for who asks for more"
