"""An NVIDIA GPU as a device."""

from collections.abc import Sequence

import torch

from moe_devices.accelerator import Accelerator
from moe_devices.green_contexts import split_processors
from moe_devices.partition import Partition


class CudaDevice(Accelerator):
    """One GPU.

    Raises:
        DeviceError: there is no GPU of this index.
    """

    kind = "cuda"
    collective = "nccl"
    common_name = "GPU"

    def __init__(self, index: int) -> None:
        super().__init__(torch.cuda, index)

    def partition(self, percents: Sequence[int]) -> Sequence[Partition]:
        return split_processors(self._device.index, percents)
