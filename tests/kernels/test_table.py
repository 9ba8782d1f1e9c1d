"""What the kernel table chooses, and what it refuses."""

import pytest
from moe_kernels.dequantised import DequantisedExperts, DequantisedLinear
from moe_kernels.deterministic import TiledLinear
from moe_kernels.formats import FLOAT_FORMATS, WEIGHT_FORMATS, served_formats
from moe_kernels.narrowed import NarrowedExperts, NarrowedLinear
from moe_kernels.ops import Ops
from moe_kernels.reference import ReferenceLinear
from moe_kernels.table import kernels, select_ops

OPS = tuple(op for op in Ops.__dataclass_fields__ if op != "plain_linear")


@pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
@pytest.mark.parametrize("device_kind", ["cpu", "cuda"])
def test_every_device_and_format_has_every_op(device_kind: str, weight_format: str) -> None:
    ops = select_ops(device_kind, weight_format, reference=True)
    assert type(ops.linear) is (DequantisedLinear if weight_format == "int8" else ReferenceLinear)
    assert all(getattr(ops, op) is not None for op in OPS)


@pytest.mark.parametrize("dtype", FLOAT_FORMATS)
@pytest.mark.parametrize("deterministic", [False, True])
def test_every_served_pair_has_every_op(dtype: str, deterministic: bool) -> None:
    assert served_formats(dtype)[0] == dtype
    for weight_format in served_formats(dtype):
        ops = select_ops("cpu", weight_format, deterministic, dtype=dtype)
        whole = select_ops("cpu", dtype, deterministic)
        assert type(ops.plain_linear) is type(whole.linear)
        if weight_format == dtype:
            assert type(ops.linear) is type(whole.linear)
        elif weight_format in FLOAT_FORMATS:
            assert (type(ops.linear), type(ops.experts)) == (NarrowedLinear, NarrowedExperts)
        else:
            assert not isinstance(ops.linear, type(whole.linear) | NarrowedLinear)


@pytest.mark.parametrize("weight_format", ["fp8", "int4", "nvfp4"])
def test_a_format_without_kernels_names_those_that_have_some(weight_format: str) -> None:
    with pytest.raises(ValueError, match=rf"'{weight_format}'.*float32, bfloat16, float16, int8"):
        select_ops("cpu", weight_format, dtype="bfloat16")


def test_weights_wider_than_activations_are_refused() -> None:
    with pytest.raises(ValueError, match=r"float32 weights.*bfloat16 act.*choose bfloat16, int8"):
        select_ops("cpu", "float32", dtype="bfloat16")
    with pytest.raises(ValueError, match="activations cannot be 'int8'"):
        select_ops("cpu", "int8", dtype="int8")


def test_an_unknown_format_names_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"'int3'.*float32, bfloat16, float16"):
        select_ops("cpu", "int3")


def test_every_kernel_fills_a_field_of_ops() -> None:
    assert {kernel.op for kernel in kernels()} == set(OPS)


@pytest.mark.parametrize("weight_format", FLOAT_FORMATS)
def test_deterministic_takes_no_kernel_that_is_not(weight_format: str) -> None:
    named = {
        kernel.build
        for kernel in kernels()
        if kernel.deterministic and kernel.weight_format in (None, weight_format)
    }
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
    monkeypatch.setattr("moe_kernels.cpu.int8.has_vnni", lambda: False)
    assert type(select_ops("cpu", "float32").linear) is ReferenceLinear
    assert type(select_ops("cpu", "int8").experts) is DequantisedExperts
