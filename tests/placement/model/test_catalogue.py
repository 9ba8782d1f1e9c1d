"""A model is found by any name that people use for it, by file, and by folder."""

import json
from pathlib import Path

import pytest
from moe_placement.model.architectures import ARCHITECTURES
from moe_placement.model.catalogue import (
    UnknownModelError,
    find_config,
    find_model,
    shipped_models,
    shipped_name,
)
from moe_placement.model.fields import SpecError


@pytest.mark.parametrize(
    ("name", "shipped"),
    [
        ("deepseek_v3", "deepseek_v3"),
        ("deepseek-ai/DeepSeek-V3", "deepseek_v3"),
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek_v3"),
        ("deepseek-ai/DeepSeek-R1", "deepseek_v3"),
        ("nvidia/DeepSeek-R1-0528-NVFP4", "deepseek_v3"),
        ("nvidia/DeepSeek-R1-NVFP4", "deepseek_v3"),
        ("deepseek-ai/DeepSeek-V3.2-Exp", "deepseek_v3_2"),
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", "deepseek_v2_lite"),
        ("MiniMaxAI/MiniMax-M2.5", "minimax_m2_5"),
        ("MiniMaxAI/MiniMax-M2", "minimax_m2_5"),
        ("Qwen/Qwen3.5-397B-A17B", "qwen3_5_397b_a17b"),
        ("Qwen/Qwen3-235B-A22B-FP8", "qwen3_235b_a22b"),
        ("qwen/qwen3-235b-a22b-instruct-2507-fp8", "qwen3_235b_a22b"),
        ("Qwen/Qwen3-Coder-480B-A35B-Instruct", "qwen3_coder_480b_a35b"),
        ("nvidia/Qwen3-32B-NVFP4", "qwen3_32b"),
        ("meta-llama/Meta-Llama-3.1-70B", "llama_3_1_70b"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama_3_1_8b"),
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "llama_3_1_8b"),
        ("moonshotai/Kimi-K2-Instruct", "kimi_k2"),
        ("moonshotai/Kimi-K2.5", "kimi_k2_5"),
        ("openai/gpt-oss-120b", "gpt_oss_120b"),
        ("zhipuai/GLM-5", "glm_5"),
        ("zai-org/GLM-4.5-FP8", "glm_4_5"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral_8x7b"),
    ],
)
def test_names_and_their_variants(name: str, shipped: str) -> None:
    assert shipped_name(name) == shipped
    assert find_config(name)["architectures"][0] in ARCHITECTURES


def test_every_shipped_name_means_itself() -> None:
    names = shipped_models()
    assert [shipped_name(name) for name in names] == list(names)
    assert {"deepseek_v3", "qwen3_30b_a3b", "mixtral_8x7b", "glm_4_5"} < set(names)


def test_a_longer_context_comes_with_the_name() -> None:
    longer, base = find_model("Qwen/Qwen3-235B-A22B-Instruct-2507"), find_model("qwen3_235b_a22b")
    assert (longer.context_length, base.context_length) == (262144, 40960)
    assert longer.parameters == base.parameters


def test_a_file_and_its_folder_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(find_config("qwen3_8b") | {"num_hidden_layers": 7}))
    assert find_model(str(path)).num_layers == 7
    assert find_model(str(tmp_path)) == find_model(str(path))


@pytest.mark.parametrize("name", ["qwen3-325b-a22b", "Qwen/Qwen3-235B", "qwen3_235b_a22b_air"])
def test_an_unknown_name_lists_the_nearest(name: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        find_model(name)
    assert f"model {name!r} is neither a file nor shipped; the nearest are" in str(caught.value)
    assert "qwen3_235b_a22b" in str(caught.value)


def test_a_name_like_no_other_lists_all() -> None:
    with pytest.raises(UnknownModelError, match="there are deepseek_v2_lite, deepseek_v3, "):
        find_model("zzz/9")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "config.json is not JSON: "),
        ("[1]", "config.json holds list; "),
        ("[" * 100_000, "config.json is not JSON: "),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SpecError) as caught:
        find_model(str(tmp_path))
    assert sentence in str(caught.value)
