"""The stub is built once."""

import shutil
from collections.abc import Callable, Mapping
from functools import partial

import pytest
from gpu_stub import MAY_BE_BUILT, build_gpu_stub, on_stub


@pytest.fixture(scope="session")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Mapping[str, str]]:
    """gpus(number, ...): the environment that has them, as `on_stub` makes it."""
    if not MAY_BE_BUILT or shutil.which("g++") is None:
        pytest.skip("the stub needs g++ and a torch without CUDA")
    return partial(on_stub, build_gpu_stub(tmp_path_factory.mktemp("gpu_stub")))
