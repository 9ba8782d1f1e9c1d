"""A GPU where there is none, for processes of their own: `gpu_stub_site` says what it is.

It proves where each tensor is and what waits for what, not what hardware makes of it.
"""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import torch

SITE = Path(__file__).with_name("gpu_stub_site")
TORCH = Path(torch.__file__).parent
# Its library registers itself with a torch that has no operators for CUDA of its own.
MAY_BE_BUILT = torch.version.cuda is None and torch.version.hip is None


def build_gpu_stub(folder: Path) -> Path:
    """-> the library, made in this folder: some 20 s."""
    library = folder / "gpu_stub_device.so"
    includes = [
        TORCH / "include",
        TORCH / "include/torch/csrc/api/include",
        sysconfig.get_path("include"),
    ]
    command = ["g++", "-O1", "-std=c++20", "-shared", "-fPIC", "-w"]
    command += [f"-I{include}" for include in includes]
    command += [str(SITE / "device.cpp"), "-o", str(library)]
    command += [f"-L{TORCH / 'lib'}", "-ltorch_python", "-ltorch_cpu", "-lc10"]
    subprocess.run([*command, f"-Wl,-rpath,{TORCH / 'lib'}"], check=True)
    return library


def on_stub(
    library: Path, num_gpus: int = 1, operator_seconds: float = 0.0, num_bytes: int = 3 << 30
) -> Mapping[str, str]:
    """What gives such GPUs to a process, and to all that it starts, beside its environment.

    Args:
        operator_seconds: that each operator keeps a GPU busy, while the host goes on.
        num_bytes: of each GPU's memory.
    """
    return {
        "PYTHONPATH": os.pathsep.join([str(SITE), *(path for path in sys.path if path)]),
        "GPU_STUB": str(library),
        "GPU_STUB_COUNT": str(num_gpus),
        "GPU_STUB_OPERATOR_SECONDS": str(operator_seconds),
        "GPU_STUB_BYTES": str(num_bytes),
    }
