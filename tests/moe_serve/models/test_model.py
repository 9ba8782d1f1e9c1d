"""A model's shape from its config alone, and steps without tokens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, MOE_FAMILIES
from moe_placement.model.spec import ModelSpec

from moe_serve.errors import CheckpointError, UnsupportedError
from moe_serve.layers.context import GroupedCacheSpec, LatentCacheSpec
from moe_serve.models.registry import describe
from moe_serve.types import Batch


def config_of(path: Path, **changes: Any) -> dict[str, Any]:
    return json.loads((path / "config.json").read_text()) | changes


@pytest.mark.parametrize("family", FAMILIES)
def test_both_spellings_of_the_config_describe_the_same(
    family: str, checkpoint: Callable[..., Path], make_decoder: Callable[..., Any]
) -> None:
    published, saved = checkpoint(family), checkpoint(family, published_config=False)
    assert config_of(published) != config_of(saved)
    ours, theirs = make_decoder(published), make_decoder(saved)
    assert ours.shape == theirs.shape
    assert torch.equal(ours.model.rotary.table_L2r, theirs.model.rotary.table_L2r)


def test_shape_says_what_the_engine_needs(checkpoint: Callable[..., Path]) -> None:
    shape = describe(config_of(checkpoint("deepseek_v3")))
    assert shape.cache_specs == (LatentCacheSpec(32 + 16),) * 3
    assert (shape.moe_layers, shape.num_experts) == ((1, 2), 16)
    assert (shape.vocab_size, shape.context_length, shape.width) == (384, 1024, 96)

    shape = describe(config_of(checkpoint("llama")))
    assert shape.cache_specs == (GroupedCacheSpec(2, 32),) * 3
    assert (shape.moe_layers, shape.num_experts) == ((), 0)


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({"decoder_sparse_step": 2}, (1,)),
        ({"mlp_only_layers": [0, 1]}, (2,)),
        ({}, (0, 1, 2)),
    ],
)
def test_moe_layers_of_qwen3_moe(
    changes: dict[str, Any], layers: tuple[int, ...], checkpoint: Callable[..., Path]
) -> None:
    assert describe(config_of(checkpoint("qwen3_moe"), **changes)).moe_layers == layers


@pytest.mark.parametrize("family", ["deepseek_v3", "deepseek_v2", "glm4_moe"])
def test_moe_layers_of_deepseek_and_glm(family: str, checkpoint: Callable[..., Path]) -> None:
    config = config_of(checkpoint(family), num_hidden_layers=8, moe_layer_freq=2)
    layers = (1, 2, 3, 4, 5, 6, 7) if family == "glm4_moe" else (2, 4, 6)
    assert describe(config).moe_layers == layers
    assert ModelSpec.from_config(config).moe_layers == layers


@pytest.mark.parametrize("family", FAMILIES)
def test_planner_and_engine_read_the_same(family: str, checkpoint: Callable[..., Path]) -> None:
    config = config_of(checkpoint(family))
    shape, spec = describe(config), ModelSpec.from_config(config)
    assert (spec.moe_layers, spec.num_experts) == (shape.moe_layers, shape.num_experts)
    assert (spec.vocab_size, spec.hidden_size) == (shape.vocab_size, shape.width)
    assert (spec.num_layers, spec.context_length) == (shape.num_layers, shape.context_length)


@pytest.mark.parametrize("published_config", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_rotary_table_is_as_large_as_planned(
    family: str,
    published_config: bool,
    checkpoint: Callable[..., Path],
    make_decoder: Callable[..., Any],
) -> None:
    path = checkpoint(family) if published_config else checkpoint(family, published_config=False)
    spec = ModelSpec.from_config(config_of(path))
    assert make_decoder(path).model.rotary.table_L2r.numel() == spec.rotary_elements


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rank_without_tokens_meets_the_others_in_every_moe_layer(
    family: str, checkpoint: Callable[..., Path], make_decoder: Callable[..., Any]
) -> None:
    decoder = make_decoder(checkpoint(family))
    inner, met = decoder.dispatcher, []

    class Recorder:
        def start(self, layer: int, x_TD: torch.Tensor, *rest: torch.Tensor) -> Any:
            met.append((layer, x_TD.shape[0]))
            return inner.start(layer, x_TD, *rest)

        def start_combine(self, *arguments: Any) -> Any:
            return inner.start_combine(*arguments)

    decoder.dispatcher = Recorder()
    assert decoder.forward(Batch()).shape == (0, decoder.shape.vocab_size)
    assert met == [(layer, 0) for layer in decoder.shape.moe_layers]
    assert bool(met) == (family in MOE_FAMILIES)


def test_an_unknown_architecture_is_refused_by_name(checkpoint: Callable[..., Path]) -> None:
    config = config_of(checkpoint("llama"), architectures=["GPT2LMHeadModel"])
    with pytest.raises(UnsupportedError, match=r"GPT2LMHeadModel.*DeepseekV3ForCausalLM.*Qwen3Moe"):
        describe(config)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llama", {"hidden_act": "gelu"}, "LlamaForCausalLM with hidden_act=gelu"),
        ("mixtral", {"sliding_window": 512}, "sliding_window=512 below its context of 1024"),
        ("deepseek_v3", {"scoring_func": "softmax"}, "scoring_func=softmax"),
        ("deepseek_v2", {"topk_method": "noaux_tc"}, "topk_method=noaux_tc"),
        ("deepseek_v2", {"attention_bias": True}, "attention_bias and no q_lora_rank"),
        ("qwen3", {"rope_scaling": {"rope_type": "longrope"}}, "rotary scaling longrope"),
    ],
)
def test_an_unsupported_feature_is_refused_by_name(
    family: str, changes: dict[str, Any], message: str, checkpoint: Callable[..., Path]
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        describe(config_of(checkpoint(family), **changes))


def test_an_unused_window_is_no_obstacle(checkpoint: Callable[..., Path]) -> None:
    changes = {"sliding_window": 512, "use_sliding_window": False}
    assert describe(config_of(checkpoint("qwen3"), **changes)).context_length == 1024


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "no hidden_size, which LlamaForCausalLM needs"),
        ({"num_hidden_layers": "3"}, "num_hidden_layers is '3', expected an integer"),
        ({"rope_scaling": {"type": "linear"}}, "rotary scaling linear has no factor"),
        ({"rope_scaling": {"type": "linear", "factor": "8"}}, "factor is '8', expected a number"),
        ({"rope_scaling": {"type": "yarn", "factor": 0}}, "factor is 0.0, expected .* above 0"),
        ({"rope_scaling": {"rope_theta": []}}, r"rope_theta is \[\], expected a number"),
        ({"rope_scaling": {"mscale": "x"}}, "mscale is 'x', expected a number"),
        ({"rope_theta": -1}, "rope_theta is -1.0, expected a number above 0"),
        ({"partial_rotary_factor": float("nan")}, "partial_rotary_factor is nan"),
    ],
)
def test_a_broken_config_is_an_error_that_names_the_field(
    changes: dict[str, Any], message: str, checkpoint: Callable[..., Path]
) -> None:
    with pytest.raises(CheckpointError, match=message):
        describe(config_of(checkpoint("llama"), **changes))


@pytest.mark.parametrize("wrong", [0, "0", [True], ["a"]])
def test_layers_that_are_no_list_of_integers_are_refused(
    wrong: Any, checkpoint: Callable[..., Path]
) -> None:
    with pytest.raises(CheckpointError, match=r"mlp_only_layers is .* expected a list of integers"):
        describe(config_of(checkpoint("qwen3_moe"), mlp_only_layers=wrong))
