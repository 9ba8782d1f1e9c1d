"""What the model files get for the names they ask for."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fp8_checkpoint import load_tensors, make_fp8, undo_fp8
from moe_comm.shard import Shard
from moe_kernels.table import select_ops
from torch.nn import functional

from moe_serve.errors import CheckpointError, UnsupportedError
from moe_serve.weights.checkpoint import Checkpoint
from moe_serve.weights.loader import WeightLoader

TEMPLATE = "model.layers.{layer}.mlp.experts.{{expert}}.{{name}}.weight"
HIDDEN, EXPERT_WIDTH, NUM_EXPERTS = 96, 48, 16
Make = Callable[..., Path]


def make_loader(
    checkpoint: Checkpoint,
    local_experts: Mapping[int, Sequence[int]] | None = None,
    dtype: torch.dtype = torch.float32,
    **arguments: Any,
) -> WeightLoader:
    ops = select_ops("cpu", "float32", deterministic=False)
    device = torch.device("cpu")
    return WeightLoader(checkpoint, ops, device, dtype, local_experts or {}, **arguments)


def expected_rows(
    weights: Mapping[str, torch.Tensor],
    prefix: str,
    x_RD: torch.Tensor,
    names: Sequence[str] = ("gate_proj", "up_proj", "down_proj"),
) -> torch.Tensor:
    gate, up, down = (weights[f"{prefix}.{name}.weight"] for name in names)
    hidden = functional.silu(functional.linear(x_RD, gate)) * functional.linear(x_RD, up)
    return functional.linear(hidden, down)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16, torch.float16])
def test_tensor_in_any_dtype(write: Make, stored: torch.dtype, wanted: torch.dtype) -> None:
    weight = torch.randn(7, 5, generator=torch.Generator().manual_seed(1)).to(stored)
    loader = make_loader(Checkpoint.open(write({"model.safetensors": {"w": weight}})), dtype=wanted)
    assert loader.tensor("w", (7, 5)).dtype == wanted
    assert torch.equal(loader.tensor("w", (7, 5)), weight.to(wanted))
    assert torch.equal(loader.tensor("w", (7, 5), torch.float32), weight.float())


def test_weights_are_copies_that_outlive_the_file(write: Make) -> None:
    path = write({"model.safetensors": {"w": torch.ones(1000)}})
    weight = make_loader(Checkpoint.open(path)).tensor("w", (1000,))
    with (path / "model.safetensors").open("r+b") as file:
        file.seek(-4000, 2)
        file.write(bytes(4000))
    assert torch.equal(weight, torch.ones(1000))


def test_linear_stacks_names_and_biases(checkpoint: Make) -> None:
    path = checkpoint("glm4_moe")
    loader, weights = make_loader(Checkpoint.open(path)), load_tensors(path)
    names = [f"model.layers.1.self_attn.{name}_proj" for name in "qkv"]
    layer = loader.linear(names, HIDDEN, (128, 64, 64), bias=True)
    x = torch.randn(3, HIDDEN)
    parts = [
        functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in names
    ]
    torch.testing.assert_close(layer(x), torch.cat(parts, dim=1))
    single = loader.linear(names[1], HIDDEN, 64)
    assert single.bias is None
    torch.testing.assert_close(single(x), functional.linear(x, weights[f"{names[1]}.weight"]))


def test_linear_of_wrong_width_names_the_tensor(checkpoint: Make) -> None:
    loader = make_loader(Checkpoint.open(checkpoint("llama")))
    with pytest.raises(CheckpointError, match=r"layers\.0\.self_attn\.k_proj\.weight"):
        loader.linear([f"model.layers.0.self_attn.{n}_proj" for n in "qk"], HIDDEN, (128, 32))
    with pytest.raises(CheckpointError, match=r"no tensor model\.layers\.0\.mlp\.up_proj\.bias"):
        loader.linear("model.layers.0.mlp.up_proj", HIDDEN, 160, bias=True)


def test_experts_in_slot_order(checkpoint: Make) -> None:
    path, slots, counts = checkpoint("deepseek_v3"), (9, 2, 9, 14), (2, 0, 1, 3)
    loader = make_loader(Checkpoint.open(path), {2: slots})
    layer = loader.experts(2, TEMPLATE.format(layer=2), HIDDEN, EXPERT_WIDTH)
    x, weights = torch.randn(sum(counts), HIDDEN), load_tensors(path)
    parts = [
        expected_rows(weights, f"model.layers.2.mlp.experts.{expert}", rows)
        for expert, rows in zip(slots, x.split(counts), strict=True)
    ]
    torch.testing.assert_close(layer(x, torch.tensor(counts)), torch.cat(parts))


def test_experts_by_mixtrals_names(checkpoint: Make) -> None:
    path = checkpoint("mixtral")
    loader = make_loader(Checkpoint.open(path), {0: (5,)})
    template = "model.layers.0.block_sparse_moe.experts.{expert}.{name}.weight"
    layer = loader.experts(0, template, HIDDEN, 160, names=("w1", "w3", "w2"))
    x, prefix = torch.randn(4, HIDDEN), "model.layers.0.block_sparse_moe.experts.5"
    expected = expected_rows(load_tensors(path), prefix, x, ("w1", "w3", "w2"))
    torch.testing.assert_close(layer(x, torch.tensor([4])), expected)


def test_rank_without_experts(checkpoint: Make) -> None:
    opened = Checkpoint.open(checkpoint("deepseek_v3"))
    layer = make_loader(opened, {2: ()}).experts(2, TEMPLATE.format(layer=2), HIDDEN, EXPERT_WIDTH)
    assert opened.bytes_read == 0
    rows = layer(torch.empty(0, HIDDEN), torch.empty(0, dtype=torch.int64))
    assert rows.shape == (0, HIDDEN)


@pytest.mark.parametrize("num_ranks", [1, 2, 4, 8])
def test_bytes_read_fall_with_the_experts_of_a_rank(checkpoint: Make, num_ranks: int) -> None:
    opened = Checkpoint.open(checkpoint("deepseek_v3"))
    told: list[int] = []
    local = {2: range(NUM_EXPERTS // num_ranks)}
    loader = make_loader(opened, local, progress=told.append)
    loader.experts(2, TEMPLATE.format(layer=2), HIDDEN, EXPERT_WIDTH)
    assert opened.bytes_read == NUM_EXPERTS // num_ranks * 3 * HIDDEN * EXPERT_WIDTH * 4
    assert sum(told) == opened.bytes_read


def test_missing_expert_is_named(checkpoint: Make) -> None:
    loader = make_loader(Checkpoint.open(checkpoint("deepseek_v3")), {2: (3, NUM_EXPERTS)})
    with pytest.raises(CheckpointError, match=r"layers\.2\.mlp\.experts\.16\.gate_proj\.weight"):
        loader.experts(2, TEMPLATE.format(layer=2), HIDDEN, EXPERT_WIDTH)


def test_fp8_checkpoint_loads_as_its_exact_numbers(checkpoint: Make, tmp_path: Path) -> None:
    sizes = {"hidden_size": 160, "intermediate_size": 200, "moe_intermediate_size": 136}
    path = make_fp8(checkpoint("deepseek_v3", **sizes), tmp_path / "fp8")
    plain = load_tensors(undo_fp8(path, tmp_path / "plain"))
    opened = Checkpoint.open(path)
    loader = make_loader(opened, {1: (6, 1)}, torch.bfloat16)
    for name, weight in plain.items():
        assert torch.equal(loader.tensor(name, weight.shape, torch.float32), weight), name
        assert torch.equal(loader.tensor(name, weight.shape), weight.bfloat16()), name
    assert opened.stored("model.layers.1.mlp.experts.0.up_proj.weight").dtype == "F8_E4M3"
    layer = make_loader(opened, {1: (6, 1)}).experts(1, TEMPLATE.format(layer=1), 160, 136)
    x = torch.randn(3, 160)
    expected = expected_rows(plain, "model.layers.1.mlp.experts.1", x)
    torch.testing.assert_close(layer(x, torch.tensor([0, 3])), expected)


def test_unknown_quantisation_is_refused_before_anything_is_read(write: Make) -> None:
    config = {"quantization_config": {"quant_method": "gptq"}}
    opened = Checkpoint.open(write({"model.safetensors": {"w": torch.ones(1)}}, **config))
    with pytest.raises(UnsupportedError, match="gptq"):
        make_loader(opened)
    assert opened.bytes_read == 0


@pytest.mark.parametrize("count", [2, 3])
def test_parts_of_a_product_sum_to_it(checkpoint: Make, tmp_path: Path, count: int) -> None:
    """Both halves of a split layer, in FP8 too; bytes are those of the part."""
    sizes = {"hidden_size": 160, "intermediate_size": 200, "mlp_bias": True}
    plain = checkpoint("llama", **sizes)
    for path in (plain, make_fp8(plain, tmp_path / "fp8")):
        whole = make_loader(Checkpoint.open(path))
        prefix, x = "model.layers.1.mlp", torch.randn(3, 160)
        up = whole.linear(f"{prefix}.up_proj", 160, 200, bias=True)
        down = whole.linear(f"{prefix}.down_proj", 200, 160, bias=True)
        ups, downs = [], []
        for index in range(count):
            shard = Shard(index, count)
            loader = make_loader(Checkpoint.open(path), shard=shard)
            rows = [shard.of(200)]
            ups.append(loader.linear(f"{prefix}.up_proj", 160, 200, bias=True, rows=rows)(x))
            part = loader.linear_part(f"{prefix}.down_proj", 200, 160, bias=True)
            assert (part.bias is None) == (index > 0)
            downs.append(part(ups[-1]))
        torch.testing.assert_close(torch.cat(ups, dim=1), up(x))
        torch.testing.assert_close(sum(downs), down(up(x)))


def test_a_share_reads_its_own_bytes(checkpoint: Make) -> None:
    opened = Checkpoint.open(checkpoint("llama"))
    loader = make_loader(opened, shard=Shard(1, 2))
    loader.linear_part("model.layers.0.mlp.down_proj", 160, 96)
    assert opened.bytes_read == 80 * 96 * 4
    rows = loader.shard.of(384)
    embedding = loader.tensor("model.embed_tokens.weight", (384, 96), rows=rows)
    assert opened.bytes_read == (80 * 96 + 192 * 96) * 4
    whole = load_tensors(opened.path)["model.embed_tokens.weight"]
    assert torch.equal(embedding, whole[192:])
