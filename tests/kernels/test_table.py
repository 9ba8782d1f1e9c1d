"""What the kernel table chooses, and what it refuses."""

import pytest
from moe_kernels.deterministic import TiledLinear
from moe_kernels.ops import Ops
from moe_kernels.reference import ReferenceLinear
from moe_kernels.table import WEIGHT_FORMATS, kernels, select_ops

OPS = tuple(Ops.__dataclass_fields__)


@pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
@pytest.mark.parametrize("device_kind", ["cpu", "cuda"])
def test_every_device_and_format_has_every_op(device_kind: str, weight_format: str) -> None:
    ops = select_ops(device_kind, weight_format, reference=True)
    assert type(ops.linear) is ReferenceLinear
    assert all(getattr(ops, op) is not None for op in OPS)


def test_an_unknown_format_names_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"'int3'.*float32, bfloat16, float16"):
        select_ops("cpu", "int3")


def test_every_kernel_fills_a_field_of_ops() -> None:
    assert {kernel.op for kernel in kernels()} == set(OPS)


@pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
def test_deterministic_takes_no_kernel_that_is_not(weight_format: str) -> None:
    named = {kernel.build for kernel in kernels() if kernel.deterministic}
    ops = select_ops("cpu", weight_format, deterministic=True)
    assert {type(getattr(ops, op)) for op in OPS} == named
    assert type(ops.linear) is TiledLinear


def test_the_reference_cannot_be_deterministic() -> None:
    with pytest.raises(ValueError, match="no linear kernel for bfloat16 weights on cpu"):
        select_ops("cpu", "bfloat16", deterministic=True, reference=True)


def test_the_choice_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        select_ops("cuda", "bfloat16", reference=True)
    assert "experts on cuda, bfloat16 weights: reference" in caplog.text


def test_a_kernel_that_this_machine_lacks_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe_kernels.cpu.products.onednn_has_float32", lambda: False)
    assert type(select_ops("cpu", "float32").linear) is ReferenceLinear
