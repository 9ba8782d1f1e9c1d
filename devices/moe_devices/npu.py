"""An Ascend NPU as a device.

NEVER RUN ON HARDWARE YET: run with torch_npu 2.13.0 on host memory, where nothing computes.
"""

import importlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from moe_devices.accelerator import Accelerator
from moe_devices.errors import DeviceError
from moe_devices.partition import Partition
from moe_devices.stream_limits import limit_streams


class NpuDevice(Accelerator):
    """One NPU; opening it loads torch_npu, for some seconds.

    Raises:
        DeviceError: torch_npu cannot be loaded, or there is no NPU of this index.
    """

    kind = "npu"
    collective = "hccl"
    common_name = "NPU"

    def __init__(self, index: int) -> None:
        super().__init__(_load_torch_npu(), index)

    def partition(self, percents: Sequence[int]) -> Sequence[Partition]:
        return limit_streams(self._module, self._device.index, percents)


def count_npus(folder: Path = Path("/dev")) -> int:
    """How many NPUs a rank could open, without loading torch_npu: that takes seconds, and fails
    without CANN.

    Args:
        folder: where the driver shows its devices.
    """
    if hasattr(torch, "npu"):
        return int(torch.npu.device_count())
    if find_spec("torch_npu") is None:
        return 0
    return len(list(folder.glob("davinci[0-9]*")))


def _load_torch_npu() -> Any:
    """-> torch.npu."""
    other = torch.accelerator.current_accelerator()
    if other is not None and other.type != "npu":
        raise DeviceError(
            f"device npu: torch {torch.__version__} is built for {other.type}, and one process "
            "holds accelerators of one kind; start NPU ranks from an environment with torch's CPU "
            "build and torch-npu"
        )
    try:
        importlib.import_module("torch_npu")
    except (ImportError, OSError, RuntimeError) as error:
        raise DeviceError(f"device npu: {_what_is_missing(error)}") from error
    return torch.npu  # type: ignore[attr-defined]


def _what_is_missing(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "torch_npu":
        return "torch_npu is not installed; pip install 'moe-serve[npu]' on a host with CANN"
    return (
        f"torch_npu does not load ({str(error).partition(chr(10))[0]}); install CANN and the "
        "driver, source CANN's set_env.sh, and have torch and torch-npu of one version"
    )
