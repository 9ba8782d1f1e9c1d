"""Bytes by weight format: elements, their scales, and what a checkpoint leaves wide."""

import pytest
from moe_placement.model.catalogue import find_model
from moe_placement.model.formats import (
    FORMATS,
    FormatError,
    attention_format,
    find_format,
    format_bytes,
    part_formats,
)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("float32", 32),
        ("bfloat16", 16),
        ("float16", 16),
        ("fp8", 8 + 32 / 16384),
        ("fp8_channel", 8 + 32 / 4096),
        ("int8", 8 + 32 / 4096),
        ("int4", 4.125),
        ("int4_group32", 4.5),
        ("fp4", 4.5),
        ("nvfp4", 4.5),
        ("mxfp4", 4.25),
    ],
)
def test_bits_of_an_element_with_its_scale(name: str, bits: float) -> None:
    assert find_format(name).bits_per_element == bits
    assert format_bytes(1 << 20, name) == bits * (1 << 17)


def test_the_kind_is_one_that_devices_list() -> None:
    kinds = {name: kept.kind for name, kept in FORMATS.items() if kept.kind != name}
    assert kinds == {
        "fp8_channel": "fp8",
        "int4_group32": "int4",
        "nvfp4": "fp4",
        "mxfp4": "fp4",
    }


def test_part_of_a_group_has_a_scale_of_its_own_bits() -> None:
    assert format_bytes(1, "fp8") == 2
    assert format_bytes(0, "int4") == 0
    assert format_bytes(16, "fp4") == 9


def test_an_unknown_format_lists_the_known() -> None:
    with pytest.raises(FormatError, match="weight format 'fp6' is not known; use float32, "):
        find_format("fp6")
    with pytest.raises(FormatError):
        find_model("deepseek_v3").bytes("fp6")


def test_attention_stays_wide_beside_narrow_experts() -> None:
    for name in ("fp4", "mxfp4", "int4"):
        assert attention_format(name, has_experts=True) == "bfloat16"
        assert attention_format(name, has_experts=False) == name
    for name in ("fp8", "int8", "bfloat16", "float32"):
        assert attention_format(name, has_experts=True) == name


def test_only_the_ends_stay_plain_in_eight_bits() -> None:
    formats = part_formats("fp8", has_experts=True)
    assert formats.pop("gate") == "float32"
    assert {part for part, name in formats.items() if name == "bfloat16"} == {
        "embedding",
        "head",
        "norms",
    }
    assert part_formats("int8", has_experts=True, plain_format="float32")["norms"] == "float32"
    assert part_formats("float16", has_experts=True)["head"] == "float16"
    assert set(part_formats("fp4", has_experts=True)) == set(find_model("kimi_k2").parameters)


@pytest.mark.parametrize(
    ("name", "weight_format", "published"),
    [
        # Sizes of the checkpoints, without the layers for drafts and the vision tower.
        ("gpt_oss_120b", "mxfp4", 65.2e9),
        ("gpt_oss_20b", "mxfp4", 13.8e9),
        ("kimi_k2_5", "int4_group32", 594e9),
        ("llama_3_1_8b", "bfloat16", 16.06e9),
        ("llama_3_1_70b", "bfloat16", 141.1e9),
        ("qwen3_30b_a3b", "bfloat16", 61.1e9),
    ],
)
def test_checkpoints_have_the_size_that_was_published(
    name: str, weight_format: str, published: float
) -> None:
    assert sum(find_model(name).bytes(weight_format).values()) == pytest.approx(published, rel=0.01)


def test_an_expert_of_deepseek_in_three_formats() -> None:
    spec = find_model("deepseek_v3")
    elements = 3 * 7168 * 2048
    assert spec.expert_bytes("bfloat16") == 2 * elements
    assert spec.expert_bytes("fp8") == elements + 4 * elements // 16384
    assert spec.expert_bytes("fp4") == elements // 2 + elements // 16
    assert spec.bytes("fp8")["experts"] == 58 * 256 * spec.expert_bytes("fp8")
    assert spec.bytes("bfloat16")["gate"] == 4 * 58 * 256 * (7168 + 1)
