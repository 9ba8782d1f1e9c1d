"""torch.cuda's functions over the stub's device: those that a torch without CUDA has not."""

import os
from contextlib import nullcontext
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from types import SimpleNamespace
from typing import Any

import torch

NAME = "NVIDIA stub"
NUM_BYTES = int(os.environ["GPU_STUB_BYTES"])
# What a driver and its context take of a real one.
DRIVER_BYTES = 64 << 20


def load_device() -> Any:
    loader = ExtensionFileLoader("gpu_stub_device", os.environ["GPU_STUB"])
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


DEVICE = load_device()


def set_device(device: int | torch.device) -> None:
    index = device if isinstance(device, int) else device.index
    if index is not None:
        DEVICE.choose(index)


def mem_get_info(device: object = None) -> tuple[int, int]:
    return NUM_BYTES - DRIVER_BYTES - DEVICE.held(), NUM_BYTES


def set_per_process_memory_fraction(fraction: float, device: object = None) -> None:
    DEVICE.cap(int(fraction * NUM_BYTES))


def get_device_properties(device: object = None) -> SimpleNamespace:
    return SimpleNamespace(name=NAME, total_memory=NUM_BYTES, multi_processor_count=132)


class Stream:
    """The one that there is: work of all streams is done in the order in which it comes."""

    def wait_stream(self, other: "Stream") -> None: ...

    def synchronize(self) -> None:
        DEVICE.wait()


def install() -> None:
    DEVICE.slow_down(float(os.environ["GPU_STUB_OPERATOR_SECONDS"]))
    DEVICE.cap(NUM_BYTES - DRIVER_BYTES)
    num_gpus = int(os.environ["GPU_STUB_COUNT"])
    replaced = {
        "_lazy_init": lambda: None,
        "init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: num_gpus,
        "current_device": lambda: torch.accelerator.current_device_index(),
        "set_device": set_device,
        "get_device_name": lambda device=None: NAME,
        "get_device_properties": get_device_properties,
        "mem_get_info": mem_get_info,
        "memory_reserved": lambda device=None: DEVICE.held(),
        "set_per_process_memory_fraction": set_per_process_memory_fraction,
        "empty_cache": lambda: None,
        "synchronize": lambda device=None: DEVICE.wait(),
        "current_stream": lambda device=None: Stream(),
        "stream": lambda stream: nullcontext(),
        # Of the stub alone.
        "pending_seconds": DEVICE.pending_seconds,
        "num_waits": DEVICE.num_waits,
    }
    for name, value in replaced.items():
        setattr(torch.cuda, name, value)
