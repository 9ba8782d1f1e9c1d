"""Processes with this folder on their path have a torch that sees GPUs, of `device.cpp`.

Python imports this file when it starts; torch is made ready when somebody imports it.
"""

import ctypes
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class TorchFinder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_beside_stub(module: ModuleType) -> None:
                # Torch asks for its GPUs once, while it is imported.
                ctypes.CDLL(os.environ["GPU_STUB"])
                execute(module)
                import stub_cuda
                import stub_nccl

                stub_cuda.install()
                stub_nccl.install()

            spec.loader.exec_module = execute_beside_stub
        return spec


if "GPU_STUB" in os.environ:
    sys.meta_path.insert(0, TorchFinder())
