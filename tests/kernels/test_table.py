"""What the kernel table chooses, and what it refuses."""

import pytest
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
