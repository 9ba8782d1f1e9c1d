"""What an NPU does on torch_npu over `npu_stub`, as JSON: run in a process of its own."""

import ctypes
import json
import sys
from datetime import timedelta
from typing import Any

import torch
from moe_comm.transport.process_group import make_process_group
from moe_devices.discover import available, open_device
from moe_devices.stream_limits import LimitedStream
from torch.distributed import HashStore

MIB = 1 << 20
RUNTIME = ctypes.CDLL("libascendcl.so")
RUNTIME.npu_stub_waited_for.restype = ctypes.c_void_p


def main() -> None:
    before = available()["npu"]
    device = open_device("npu", 0)
    assert "torch_npu" in sys.modules
    found: dict[str, Any] = {
        "available": [before, available()["npu"]],
        "name": device.name,
        "device": str(device.torch_device),
        "num_float_errors": float_errors(device.torch_device),
        "refusal": refusal(lambda: torch.ones(3, device="npu")),
        "missing": refusal(lambda: open_device("npu", 1)),
    }
    held = torch.empty(100 * MIB, dtype=torch.uint8, device=device.torch_device)
    memory = device.memory()
    found["memory_mib"] = [memory.total // MIB, memory.free // MIB, device.held_memory // MIB]
    del held
    device.release_memory()
    found["held_after"] = device.held_memory
    found["cap"] = device.cap_memory(256 * MIB)
    found["above_cap"] = refusal(lambda: take(257))
    found["below_cap"] = refusal(lambda: take(230))
    found["cap_below"] = refusal(lambda: device.cap_memory(MIB))
    found["parts"] = [look_at(part) for part in device.partition([25, 10])]  # type: ignore[arg-type]
    group = make_process_group(
        device.collective, HashStore(), 0, 1, device.torch_device, timedelta(seconds=20)
    )
    found["group"] = [group.size(), group.name()]
    found["collective"] = refusal(lambda: group.allreduce([torch.empty(3, device="npu")]).wait())
    print(json.dumps(found))


def float_errors(device: torch.device) -> int:
    """Numbers that come back from the device, and another part of it, as others."""
    numbers = torch.randn(1000, 100)
    there = numbers.to(device)
    back = torch.empty_like(there[1:]).copy_(there[1:]).cpu()
    pinned = torch.empty(1000, 100, pin_memory=True)
    pinned.copy_(there, non_blocking=True)
    # As a step waits for its work.
    torch.accelerator.current_stream(device).synchronize()
    assert pinned.is_pinned()
    return int((back != numbers[1:]).sum() + (pinned != numbers).sum())


def refusal(ask: Any) -> str:
    try:
        ask()
    except (OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


def take(num_mib: int) -> None:
    torch.empty(num_mib * MIB, dtype=torch.uint8, device="npu")


def look_at(part: LimitedStream) -> dict[str, Any]:
    """What arrived at the runtime of a part that is used and closed."""
    npu: Any = torch.npu  # type: ignore[attr-defined]
    outer = npu.current_stream()
    with part.use():
        inner = npu.current_stream()
        waited = RUNTIME.npu_stub_waited_for(ctypes.c_void_p(inner.npu_stream))
        limits, told = runtime_limits(inner), npu.get_stream_limit(inner)
    waits = RUNTIME.npu_stub_waited_for(ctypes.c_void_p(outer.npu_stream))
    part.close()
    return {
        "name": part.name,
        "stream": inner.npu_stream,
        "limits": limits,
        "told": [told["cube_core_num"], told["vector_core_num"]],
        "is_in_order": [waited == outer.npu_stream, waits == inner.npu_stream],
        "is_outer_again": npu.current_stream() == outer,
        "limits_after": runtime_limits(inner),
    }


def runtime_limits(stream: Any) -> list[int]:
    """Cube and vector cores, asked for below torch_npu."""
    value, limits = ctypes.c_uint32(), []
    for kind in (0, 1):
        handle = ctypes.c_void_p(stream.npu_stream)
        assert RUNTIME.aclrtGetStreamResLimit(handle, kind, ctypes.byref(value)) == 0
        limits.append(value.value)
    return limits


if __name__ == "__main__":
    main()
