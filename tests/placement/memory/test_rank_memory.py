"""Bytes per rank: exact for weights, whole pages for the cache, and a sentence when short."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from moe_placement.equal_split import equal_split
from moe_placement.memory.rank_memory import RankMemory, check_model, rank_memory
from moe_placement.memory.report import fit_problems, format_bytes
from moe_placement.memory.working_space import LOGIT_BYTES, expected_rows, working_space
from moe_placement.model.formats import format_bytes as format_bytes_of
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import LayerPlan, Plan, PlanError, PoolPlan
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

GIB = 1024**3

SMALL = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "first_k_dense_replace": 1,
    "hidden_size": 64,
    "intermediate_size": 96,
    "kv_lora_rank": 32,
    "moe_intermediate_size": 48,
    "n_routed_experts": 8,
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 3,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "vocab_size": 256,
}
SPEC = ModelSpec.from_config(SMALL)
POOLS = (
    PoolPlan("hopper", "cuda", (0, 1), "both", "bfloat16"),
    PoolPlan("host", "cpu", (2,), "experts", "float32"),
)
PLAN = equal_split("small", 8, SPEC.moe_layers, POOLS)


def price(plan: Plan = PLAN, rank: int = 0, spec: ModelSpec = SPEC, **changes: Any) -> RankMemory:
    options: dict[str, Any] = {
        "max_tokens_per_step": 16,
        "page_size": 8,
        "num_pages": None,
        "device_bytes": 8 << 20,
        "memory_fraction": 0.5,
        "max_context": 64,
    }
    return rank_memory(spec, plan, rank, **{**options, **changes})


def meta_bytes(config: dict[str, Any], dtype: torch.dtype) -> dict[str, int]:
    """Bytes of transformers' model, its routers in float32, by this module's parts."""
    hub_config = CONFIG_MAPPING["deepseek_v3"].from_dict(config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(hub_config, dtype=dtype)
    parts = dict.fromkeys(("attention", "dense", "shared", "ends", "gates", "norms", "expert"), 0)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if "rotary" in name:
            continue
        itemsize = 4 if ".gate." in name else tensor.element_size()
        parts[meta_part(name)] += tensor.numel() * itemsize
    return parts


def meta_part(name: str) -> str:
    for mark, part in (
        ("norm", "norms"),
        ("self_attn", "attention"),
        ("shared_experts", "shared"),
        (".experts.", "expert"),
        (".gate.", "gates"),
        (".mlp.", "dense"),
    ):
        if mark in name:
            return part
    return "ends"


@pytest.mark.parametrize(
    ("weight_format", "dtype"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_weights_are_exactly_those_of_the_model(weight_format: str, dtype: torch.dtype) -> None:
    pools = (PoolPlan("all", "cpu", (0, 1, 2), "both", weight_format),)
    plan = equal_split("small", 8, SPEC.moe_layers, pools)
    parts = meta_bytes(SMALL, dtype)
    ranks = [price(plan, rank) for rank in range(3)]
    for memory in ranks:
        assert memory.attention == parts["attention"]
        assert memory.dense_mlp == parts["dense"]
        assert memory.shared_experts == parts["shared"]
        assert memory.embedding_and_head == parts["ends"]
        assert memory.gates_and_norms == parts["gates"] + parts["norms"]
    assert sum(memory.experts for memory in ranks) == parts["expert"]
    # 8 experts over 3 ranks: 3, 3 and 2.
    assert [memory.experts * 8 // parts["expert"] for memory in ranks] == [3, 3, 2]


def test_the_parts_sum_up() -> None:
    memory = price()
    assert memory.weights == memory.other_weights + memory.experts
    assert memory.total == memory.weights + memory.working_space + memory.kv
    whole = price(equal_split("small", 8, SPEC.moe_layers, (replace(POOLS[0], ranks=(0,)),)))
    gates = SPEC.parameters["gate"]
    tables = 2 * SPEC.context_length * 2 * SMALL["qk_rope_head_dim"]
    assert whole.rotary_table == tables
    assert whole.weights == 2 * SPEC.total_parameters + 2 * gates + 4 * SPEC.num_buffers + tables


def test_a_rank_of_experts_has_neither_attention_nor_cache() -> None:
    memory = price(rank=2)
    assert memory.other_weights == 0
    assert (memory.kv, memory.num_pages, memory.num_tokens) == (0, 0, 0)
    # Its two experts in each of two layers, in the pool's own format.
    assert memory.experts == 2 * 2 * SPEC.mlp.expert * 4
    assert memory.device == "cpu:2"
    assert memory.fits


def test_replicas_and_uneven_counts_are_paid_for() -> None:
    layer = LayerPlan(((0, 1, 2, 3, 4, 5, 6, 7), (0,), ()), ((0.5, *(1.0,) * 7), (0.5,), ()))
    plan = replace(PLAN, layers=dict.fromkeys(SPEC.moe_layers, layer))
    assert [price(plan, rank).experts for rank in range(3)] == [
        2 * 8 * SPEC.mlp.expert * 2,
        2 * 1 * SPEC.mlp.expert * 2,
        0,
    ]


@pytest.mark.parametrize(
    ("weight_format", "attention_format"),
    [("fp8", "fp8"), ("int4", "bfloat16"), ("mxfp4", "bfloat16")],
)
def test_narrow_formats_hold_matrices_with_their_scales(
    weight_format: str, attention_format: str
) -> None:
    pools = (replace(POOLS[0], weight_format=weight_format), POOLS[1])
    wide, narrow = price(), price(replace(PLAN, pools=pools))
    for part in ("attention", "dense_mlp", "shared_experts"):
        elements = getattr(wide, part) // 2
        assert getattr(narrow, part) == format_bytes_of(elements, attention_format)
    assert narrow.experts == pytest.approx(format_bytes_of(wide.experts // 2, weight_format), abs=8)
    assert narrow.experts < wide.experts
    assert narrow.embedding_and_head == wide.embedding_and_head
    assert narrow.gates_and_norms == wide.gates_and_norms


@pytest.mark.parametrize(("device", "row_bytes"), [("cuda", 4), ("cpu", 8)])
def test_int8_has_a_scale_for_each_row_and_leaves_absorbed_matrices_wide(
    device: str, row_bytes: int
) -> None:
    plain = replace(PLAN, pools=(replace(POOLS[0], device=device), POOLS[1]))
    pools = (replace(plain.pools[0], weight_format="int8"), POOLS[1])
    wide, narrow = price(plain), price(replace(plain, pools=pools))
    # Two MoE layers with a shared expert, gate, up and down; three experts on the rank in each.
    rows = 2 * 48 + 64
    assert narrow.shared_experts == wide.shared_experts // 2 + 2 * rows * row_bytes
    assert narrow.experts == wide.experts // 2 + 2 * 3 * rows * row_bytes
    assert narrow.dense_mlp == wide.dense_mlp // 2 + (2 * 96 + 64) * row_bytes
    # A latent of 32 to and from four heads of 16 and 16; to the latents, to queries, and back.
    absorbed = 3 * 32 * 4 * (16 + 16)
    rows = 3 * ((24 + 32 + 8) + 4 * (16 + 8) + 64)
    expected = wide.attention // 2 - absorbed + 2 * absorbed + rows * row_bytes
    assert narrow.attention == expected
    assert narrow.embedding_and_head == wide.embedding_and_head


def test_tensor_parallel_ranks_share_attention_and_vocabulary() -> None:
    pools = (replace(POOLS[0], tensor_parallel=2), POOLS[1])
    whole, half = price(), price(replace(PLAN, pools=pools))
    for part in ("dense_mlp", "shared_experts", "embedding_and_head"):
        assert getattr(half, part) == getattr(whole, part) // 2
    # What makes the latents, three layers of 64 x (24 + 32 + 8) in bfloat16, is in both halves.
    assert half.attention == (whole.attention + 3 * 64 * (24 + 32 + 8) * 2) // 2
    for part in ("experts", "gates_and_norms", "rotary_table"):
        assert getattr(half, part) == getattr(whole, part)
    # A latent cannot be split: each rank of the group keeps all of it.
    assert half.page_bytes == whole.page_bytes
    # Two ranks are one attention group now, so half as many tokens reach the experts.
    assert expected_rows(SPEC, PLAN, 2, 16) == 2 * expected_rows(
        SPEC, replace(PLAN, pools=pools), 2, 16
    )


def test_heads_of_the_cache_are_shared_as_far_as_they_go() -> None:
    grouped = {"architectures": ["MixtralForCausalLM"], "num_key_value_heads": 4}
    spec = ModelSpec.from_config({**grouped, "num_hidden_layers": 2})
    plan = equal_split(
        "grouped", spec.num_experts, spec.moe_layers, (replace(POOLS[0], ranks=(0,)),)
    )

    def page_bytes(degree: int) -> int:
        split = replace(plan, pools=(replace(plan.pools[0], tensor_parallel=degree),))
        return price(split, 0, spec, device_bytes=1 << 40).page_bytes

    assert [page_bytes(1) // page_bytes(degree) for degree in (2, 4, 8)] == [2, 4, 4]


def test_rows_come_from_the_own_ep_group_alone() -> None:
    pool = PoolPlan("all", "cuda", (0, 1, 2, 3), num_ep_groups=2)
    layer = LayerPlan((tuple(range(8)), ()) * 2, ((1.0,) * 8, ()) * 2)
    plan = Plan("small", 8, (pool,), dict.fromkeys(SPEC.moe_layers, layer))
    plan.validate()
    # Each group's two ranks send 16 tokens to 2 experts, all on the group's first rank.
    assert [expected_rows(SPEC, plan, rank, 16) for rank in range(4)] == [64, 0, 64, 0]


def test_the_cache_takes_what_is_left_in_whole_pages() -> None:
    memory = price()
    assert memory.page_bytes == 8 * 3 * (32 + 8) * 2
    assert memory.budget == 4 << 20
    assert memory.fits
    assert 0 <= memory.budget - memory.total < memory.page_bytes
    assert memory.num_tokens == memory.num_pages * 8
    wider = price(activation_bytes=4)
    assert wider.page_bytes == 2 * memory.page_bytes


def test_zero_pages_means_as_many_as_fit() -> None:
    assert price(num_pages=0) == price(num_pages=None)


def test_asked_pages_are_kept_and_may_not_fit() -> None:
    room = price().num_pages
    assert price(num_pages=room).fits
    short = price(num_pages=room + 10)
    assert not short.fits
    assert short.num_pages == room + 10
    assert short.shortfall == short.total - short.budget
    assert 9 * short.page_bytes < short.shortfall <= 10 * short.page_bytes


def test_one_page_is_the_least() -> None:
    memory = price(device_bytes=1 << 10)
    assert memory.num_pages == 1
    assert not memory.fits


def test_working_space_grows_with_tokens_and_logits() -> None:
    def space(tokens: int, sequences: int | None = None, rank: int = 0) -> int:
        return working_space(SPEC, PLAN, rank, 2, tokens, sequences, max_length=64)

    assert space(32) == 2 * space(16)
    gathered = 2 * 12 * 64 * SPEC.attention.kv_elements * 2
    assert space(16) - space(16, sequences=4) == gathered
    assert space(16, sequences=99) == space(16)
    assert 0 < space(16, rank=2) < space(16)
    wide = replace(SPEC, vocab_size=1 << 18)
    few, many = (working_space(wide, PLAN, 0, 2, 16, sequences) for sequences in (4, 16))
    assert many - few == 12 * wide.vocab_size * LOGIT_BYTES


def test_expected_rows_share_the_tokens_of_all_senders() -> None:
    rows = [expected_rows(SPEC, PLAN, rank, 16) for rank in range(3)]
    # Two ranks send 16 tokens to 2 experts each; blocks of 3, 3 and 2 of 8 experts.
    assert rows == [24, 24, 16]
    dense = Plan("dense", 0, POOLS, {})
    assert expected_rows(SPEC, dense, 0, 16) == 0


def test_a_plan_of_another_model_is_refused() -> None:
    check_model(PLAN, SPEC)
    with pytest.raises(PlanError, match="8 experts a layer, DeepseekV3ForCausalLM here has 4"):
        price(spec=ModelSpec.from_config({**SMALL, "n_routed_experts": 4}))
    with pytest.raises(PlanError, match="layer 3 has experts in the model but not in the plan"):
        price(spec=ModelSpec.from_config({**SMALL, "num_hidden_layers": 4}))
    with pytest.raises(PlanError, match="layer 1 has experts in the plan but not in the model"):
        price(spec=ModelSpec.from_config({**SMALL, "first_k_dense_replace": 2}))


def test_what_cannot_be_priced_is_refused() -> None:
    unknown = replace(PLAN, pools=(replace(POOLS[0], weight_format="fp3"), POOLS[1]))
    with pytest.raises(PlanError, match="pool 'hopper': weight format 'fp3' is not known; use f"):
        price(unknown)


def test_a_dense_model_on_two_ranks() -> None:
    spec = ModelSpec.from_config({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2})
    plan = equal_split("dense", 0, (), (replace(POOLS[0], ranks=(0, 1)),))
    memory = price(plan, 1, spec, device_bytes=8 * GIB)
    assert (memory.experts, memory.shared_experts) == (0, 0)
    assert memory.weights - memory.rotary_table == 2 * spec.total_parameters
    assert memory.rotary_table == 2 * 2048 * 2 * 128
    assert memory.fits


def test_a_tied_head_is_a_second_copy_where_matrices_are_packed() -> None:
    tied = {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}
    spec = ModelSpec.from_config(tied)
    packed, plain = (
        price(equal_split("tied", 0, (), (replace(POOLS[0], device=device, ranks=(0,)),)), 0, spec)
        for device in ("cpu", "cuda")
    )
    assert plain.embedding_and_head == 2 * spec.embedding
    assert packed.embedding_and_head == 2 * plain.embedding_and_head


def deepseek(
    config: dict[str, Any], weight_format: str, num_ranks: int, **changes: Any
) -> list[RankMemory]:
    spec = ModelSpec.from_config(config)
    pool = PoolPlan("nvidia", "cuda", tuple(range(num_ranks)), "both", weight_format)
    plan = equal_split("DeepSeek-V3", 256, spec.moe_layers, (pool,))
    options = {"device_bytes": 96 * GIB, "memory_fraction": 0.9, "max_sequences": 64, **changes}
    options = {"max_tokens_per_step": 1024, "page_size": 64, "num_pages": None, **options}
    return [rank_memory(spec, plan, rank, **options) for rank in range(num_ranks)]


def test_deepseek_v3_by_the_known_numbers(
    shipped_config: Callable[[str], dict[str, Any]],
) -> None:
    config = shipped_config("deepseek_v3")
    assert deepseek(config, "bfloat16", 16)[0].other_weights == pytest.approx(34e9, rel=0.02)
    on_eight = deepseek(config, "fp8", 8)[0]
    assert on_eight.weights == pytest.approx(100.7e9, rel=0.005)
    assert not on_eight.fits
    on_sixteen = deepseek(config, "fp8", 16)
    assert all(memory.fits for memory in on_sixteen)
    assert on_sixteen[0].page_bytes == 64 * 61 * 576 * 2
    assert fit_problems(on_sixteen) == ()


def test_the_sentence_names_need_place_and_room(
    shipped_config: Callable[[str], dict[str, Any]],
) -> None:
    memories = deepseek(shipped_config("deepseek_v3"), "fp8", 8, device_bytes=80 * GIB)
    need = format_bytes(memories[0].total)
    assert fit_problems(memories) == (
        f"plan needs {need} on cuda:0, 72.0 GiB free (8 ranks of pool nvidia lack room); "
        "add a device, or use a smaller weight format",
    )


def test_the_worst_rank_of_each_short_pool_speaks() -> None:
    memories = [
        replace(price(rank=rank), budget=budget) for rank, budget in ((0, 1000), (1, 500), (2, 100))
    ]
    first, second = fit_problems(memories)
    assert "on cuda:1, 500 B free (2 ranks of pool hopper lack room)" in first
    assert "on cpu:2, 100 B free;" in second


def test_the_advice_is_one_that_helps() -> None:
    room = price().num_pages
    [pages] = fit_problems([price(num_pages=room + 10)])
    assert pages.endswith(f"lower cache.num_pages from {room + 10} to {room}, or add a device")

    needed = price(num_pages=1).total
    [fraction] = fit_problems([price(device_bytes=needed + 10, memory_fraction=0.5)])
    assert "raise cache.memory_fraction to " in fraction
    advised = float(fraction.split("memory_fraction to ")[1].split(",")[0])
    assert price(device_bytes=needed + 10, memory_fraction=advised).fits

    [tokens] = fit_problems([price(max_tokens_per_step=4096)])
    assert "lower scheduler.max_tokens_per_step" in tokens
    assert price(max_tokens_per_step=16).fits


def test_bytes_are_written_for_people() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1024, 3 << 19, 61 * GIB + GIB // 5)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 MiB",
        "61.2 GiB",
    ]
