import pytest
from moe_placement.cost.parallelism import Parallelism
from moe_placement.cost.work import step_work
from moe_placement.model.catalogue import find_model
from moe_placement.model.spec import ModelSpec


def test_one_device_has_all_weights(deepseek: ModelSpec) -> None:
    work = step_work(deepseek, Parallelism(), "fp8", "fp8")
    held = deepseek.bytes("fp8")
    experts = work.moe_layers * work.experts * work.expert_bytes
    assert experts == pytest.approx(held["experts"], rel=1e-6)
    others = sum(held[part] for part in ("attention", "dense_mlp", "shared_experts", "gate"))
    assert work.dense_bytes == pytest.approx(others + held["head"])
    assert work.reduces == work.exchanges == 0


def test_flops_of_a_token_are_the_models(deepseek: ModelSpec) -> None:
    work = step_work(deepseek, Parallelism(), "fp8", "fp8")
    flops = work.dense_flops + work.logits_flops
    flops += work.moe_layers * work.expert_rows * work.expert_flops
    assert flops == pytest.approx(sum(deepseek.flops_per_token.values()))


def test_parallel_degrees_divide_the_work(deepseek: ModelSpec) -> None:
    alone = step_work(deepseek, Parallelism(), "fp8", "fp8")
    shared = step_work(deepseek, Parallelism(tensor_parallel=8, expert_parallel=8), "fp8", "fp8")
    assert shared.dense_bytes == alone.dense_bytes / 8
    assert shared.experts == alone.experts / 8
    assert shared.expert_rows == alone.expert_rows / 8
    assert shared.expert_bytes == alone.expert_bytes
    assert shared.reduces == 2 * deepseek.num_layers


def test_tensor_parallelism_copies_a_latent_cache_and_splits_heads() -> None:
    split = Parallelism(tensor_parallel=4, expert_tensor_parallel=4)
    for name, shares in (("deepseek-ai/DeepSeek-V3", 1), ("Qwen/Qwen3-30B-A3B", 4)):
        alone = step_work(find_model(name), Parallelism(), "fp8", "fp8")
        shared = step_work(find_model(name), split, "fp8", "fp8")
        assert shared.far_cache == pytest.approx(alone.far_cache / shares)
        assert shared.far_decode == pytest.approx(alone.far_decode / 4)


def test_attention_groups_exchange_rows_instead_of_reducing(deepseek: ModelSpec) -> None:
    groups = Parallelism(data_parallel=8, expert_parallel=8)
    work = step_work(deepseek, groups, "fp8", "fp8")
    assert work.reduces == 0
    assert work.exchanges == 2 * len(deepseek.moe_layers)
    assert work.exchange_bytes > 0


def test_a_rows_copies_are_fewer_than_its_experts(deepseek: ModelSpec) -> None:
    row = deepseek.hidden_size * 3.0 * len(deepseek.moe_layers)
    few = step_work(deepseek, Parallelism(data_parallel=2, expert_parallel=2), "fp8", "fp8")
    many = step_work(deepseek, Parallelism(data_parallel=64, expert_parallel=64), "fp8", "fp8")
    assert few.exchange_bytes < row
    assert row < many.exchange_bytes < deepseek.num_experts_per_token * row


def test_windows_and_selection_bound_the_near_attention() -> None:
    work = step_work(find_model("openai/gpt-oss-120b"), Parallelism(), "mxfp4", "bfloat16")
    assert work.near_reach == 128
    assert work.near_cache == work.far_cache
    sparse = step_work(find_model("zai-org/GLM-5"), Parallelism(), "fp8", "bfloat16")
    assert sparse.near_reach == 2048
    assert 0 < sparse.far_cache < sparse.near_cache
    assert 0 < sparse.far_decode < sparse.near_decode


def test_recurrent_states_cost_each_sequence_alike() -> None:
    work = step_work(find_model("Qwen/Qwen3.5-397B-A17B"), Parallelism(), "fp8", "bfloat16")
    assert work.state_bytes > 0
    assert step_work(find_model("Qwen/Qwen3-30B-A3B"), Parallelism(), "fp8", "fp8").state_bytes == 0
