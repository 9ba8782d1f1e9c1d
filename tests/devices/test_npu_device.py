"""Opening an NPU where there is none: one line that says what is missing."""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from moe_devices.discover import open_device
from moe_devices.errors import DeviceError
from moe_devices.npu import count_npus

without_torch_npu = pytest.mark.skipif(
    find_spec("torch_npu") is not None or torch.accelerator.current_accelerator() is not None,
    reason="torch_npu is installed, or torch is built for another accelerator",
)


@without_torch_npu
def test_without_torch_npu_the_sentence_says_what_to_install() -> None:
    with pytest.raises(DeviceError, match=r"npu: torch_npu is not installed; pip install 'moe-se"):
        open_device("npu", 0)
    assert "torch_npu" not in sys.modules


@pytest.mark.parametrize(
    "failure",
    [
        "raise ImportError('libhccl.so: cannot open shared object file\\nand more')",
        "raise RuntimeError('libhccl.so: cannot open shared object file\\nand more')",
        "import ctypes; ctypes.CDLL('libhccl.so')",
    ],
)
@without_torch_npu
def test_without_cann_the_sentence_says_so(
    failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch_npu.py").write_text(f"{failure}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        DeviceError, match=r"load \(libhccl\.so: [\w ]+( .*)?\); install CANN"
    ) as caught:
        open_device("npu", 0)
    assert "\n" not in str(caught.value)


@without_torch_npu
def test_what_torch_npu_itself_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch_npu.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceError, match=r"does not load .No module named 'no_such_module'.;"):
        open_device("npu", 0)


def test_torch_for_another_accelerator_drives_no_npu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    with pytest.raises(DeviceError, match=r"is built for cuda, and one process .* CPU build"):
        open_device("npu", 0)


@without_torch_npu
def test_npus_are_counted_without_loading_torch_npu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("davinci0", "davinci12", "davinci_manager", "null"):
        (tmp_path / name).touch()
    assert count_npus(tmp_path) == 0, "nothing here could drive them"
    (tmp_path / "torch_npu.py").write_text("raise RuntimeError\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert count_npus(tmp_path) == 2
    monkeypatch.setattr(torch, "npu", SimpleNamespace(device_count=lambda: 1), raising=False)
    assert count_npus(tmp_path) == 1, "as ASCEND_RT_VISIBLE_DEVICES leaves them"
