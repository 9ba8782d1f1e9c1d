"""`moe_serve --check`: the numbers, what fits, and the configs that are shipped."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from moe_placement.plan import LayerPlan, Plan, PoolPlan
from moe_placement.plan_file import save
from rich.console import Console

from moe_serve.check import check
from moe_serve.check_report import CheckReport, print_report
from moe_serve.config.load import load_config
from moe_serve.config.resolve import resolve
from moe_serve.control.meeting.world import LaunchedWorld
from moe_serve.control.planning.deployment import Deployment, plan_deployment
from moe_serve.errors import ConfigError, PlacementError

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = {
    "deepseek_v3.yaml": "builtin:deepseek_v3",
    "mixtral.yaml": "builtin:mixtral_8x7b",
    "qwen3_moe.yaml": "builtin:qwen3_30b_a3b",
}
ALONE = LaunchedWorld()


def checked(capsys: pytest.CaptureFixture[str], name: str, *overrides: str) -> dict[str, Any]:
    config = load_config(CONFIGS / name, [f"model.path={SHIPPED[name]}", *overrides])
    capsys.readouterr()
    assert check(config, ALONE, as_json=True) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_shipped_config_is_known_here() -> None:
    assert {path.name for path in CONFIGS.glob("*.yaml")} == {
        *SHIPPED,
        "demo.yaml",
        "mixed_six.yaml",
        "slices.yaml",
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_fits_and_holds_a_whole_context(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    found = checked(capsys, name)
    assert found["problems"] == []
    for rank in found["ranks"]:
        assert rank["fits"]
        assert rank["num_tokens"] >= 2 * found["model"]["max_context"]


def test_the_demo_config_fits_a_small_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = load_config(CONFIGS / "demo.yaml", ["pools.0.memory=256MiB"])
    assert config.num_ranks == 2
    assert check(config, ALONE, as_json=False) == 0
    assert "model  demo (DeepseekV3ForCausalLM), float32, context 4096" in capsys.readouterr().out
    # Nothing is made before it is served.
    assert list(tmp_path.iterdir()) == []


def test_the_parts_of_deepseek_v3(capsys: pytest.CaptureFixture[str]) -> None:
    found = checked(capsys, "deepseek_v3.yaml")
    model, rank = found["model"], found["ranks"][0]
    assert model["total_parameters"] == sum(model["parameters"].values()) == 671_026_404_352
    assert model["architecture"] == "DeepseekV3ForCausalLM"
    num_ranks = found["plan"]["num_ranks"]
    assert rank["experts"] * num_ranks == 2 * model["parameters"]["experts"]
    assert rank["attention"] == 2 * model["parameters"]["attention"]
    parts = ("attention", "dense_mlp", "shared_experts", "embedding_and_head", "gates_and_norms")
    weights = sum(rank[part] for part in (*parts, "rotary_table", "experts"))
    assert rank["rotary_table"] == 163840 * 2 * 64 * 2
    assert rank["weights"] == weights
    assert rank["total"] == weights + rank["working_space"] + rank["kv"] <= rank["budget"]
    assert set(rank["slots_by_layer"].values()) == {256 // num_ranks}
    assert found["chosen"]["models[0].dtype"] == "bfloat16"


def test_experts_shrink_with_ranks_and_all_else_stays(capsys: pytest.CaptureFixture[str]) -> None:
    few, many = (
        checked(capsys, "qwen3_moe.yaml", f"pools.0.ranks={ranks}")["ranks"][0] for ranks in (2, 4)
    )
    assert few["experts"] == 2 * many["experts"]
    assert few["attention"] == many["attention"]
    assert many["num_pages"] > few["num_pages"]


def test_what_does_not_fit_is_one_sentence_after_the_report(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = load_config(CONFIGS / "deepseek_v3.yaml", ["pools.0.ranks=8"])
    with pytest.raises(PlacementError) as caught:
        check(config, ALONE, as_json=False)
    message = str(caught.value)
    assert message.startswith("plan needs ")
    assert "on cuda:" in message
    assert "free" in message
    assert "add a device" in message
    report = capsys.readouterr().out
    assert f"does not fit  {message}" in report
    assert "every rank has room" not in report
    with pytest.raises(PlacementError):
        check(config, ALONE, as_json=True)
    assert json.loads(capsys.readouterr().out)["problems"] == [message]


def test_a_gpu_that_is_not_here_must_declare_its_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = load_config(CONFIGS / "deepseek_v3.yaml", ["pools.0.memory=0"])
    with pytest.raises(ConfigError, match=r"pools\[0\]\.memory: .* no memory of cuda .* 80GiB"):
        check(config, ALONE, as_json=False)


def test_an_emulated_pool_has_the_memory_of_what_it_emulates(
    capsys: pytest.CaptureFixture[str],
) -> None:
    emulated = "pools=[{name: host, device: emulated, ranks: 2, hardware: h20, weights: bfloat16}]"
    found = checked(capsys, "mixtral.yaml", emulated)
    assert {rank["device_bytes"] for rank in found["ranks"]} == {96 * 2**30}


def test_a_gpu_that_is_here_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 143771\necho 143770\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = checked(capsys, "deepseek_v3.yaml", "pools.0.memory=0")
    assert {rank["device_bytes"] for rank in found["ranks"]} == {143770 * 2**20}


def test_ranks_of_a_host_share_its_memory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moe_serve.check.host_memory", lambda: 400 * 2**30)
    found = checked(capsys, "qwen3_moe.yaml", "pools.0.memory=0")
    assert [rank["device_bytes"] for rank in found["ranks"]] == [200 * 2**30] * 2


MIXED = (
    "pools=[{name: ascend, device: npu, ranks: 32, role: prefill, weights: int8, memory: 64GB},"
    " {name: hopper, device: cuda, ranks: 16, role: decode, weights: fp8, memory: 141GB}]"
)


def test_what_is_not_served_yet_is_priced_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(CONFIGS / "deepseek_v3.yaml", [MIXED], to_serve=False)
    assert check(config, ALONE, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == []
    ascend, hopper = found["ranks"][0], found["ranks"][-1]
    assert (ascend["device_bytes"], hopper["device_bytes"]) == (64 * 10**9, 141 * 10**9)
    parameters = found["model"]["parameters"]
    # One byte an element, and the scales of its blocks; with int8, two in absorbed matrices.
    assert hopper["attention"] == pytest.approx(parameters["attention"], rel=0.001)
    absorbed = 61 * 512 * 128 * (128 + 128)
    assert ascend["attention"] == pytest.approx(parameters["attention"] + absorbed, rel=0.001)
    (said,) = found["unserved"]
    assert "does not compute with fp8 weights" in said
    assert check(config, ALONE, as_json=False) == 0
    printed = capsys.readouterr().out
    assert printed.count("warning  this version cannot serve it yet: ") == len(found["unserved"])
    assert "fits  every rank has room for its part" in printed


def test_a_shipped_config_is_served_without_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(capsys, "qwen3_moe.yaml")["unserved"] == []


def test_a_plan_of_several_groups_is_served(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pools = "pools=[{name: host, device: cpu, ranks: 2, memory: 120GiB, weights: bfloat16}]"
    text = (CONFIGS / "mixtral.yaml").read_text()
    (tmp_path / "two.yaml").write_text(text)
    whole = tuple(range(8))
    placement = LayerPlan((whole, whole), ((1.0,) * 8,) * 2)
    pool = PoolPlan("host", "cpu", (0, 1), num_ep_groups=2)
    save(
        Plan("mixtral_8x7b", 8, (pool,), dict.fromkeys(range(32), placement)), tmp_path / "two.json"
    )
    config = load_config(
        tmp_path / "two.yaml", [pools, "model.path=builtin:mixtral_8x7b", "placement.plan=two.json"]
    )
    assert check(config, ALONE, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["unserved"] == []
    assert found["ranks"][0]["experts"] == 2 * found["model"]["parameters"]["experts"]


def test_other_ranks_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(CONFIGS / "deepseek_v3.yaml")
    world = LaunchedWorld(rank=1, size=16, local_rank=1, local_size=16, is_launched=True)
    assert check(config, world, as_json=False) == 0
    assert capsys.readouterr().out == ""


@pytest.fixture
def uneven() -> CheckReport:
    """256 experts on 7 ranks: four ranks have one more than the others."""
    config = load_config(CONFIGS / "deepseek_v3.yaml", ["pools.0.ranks=7", "pools.0.memory=1TiB"])
    from moe_serve.control.planning.model_json import read_model_json

    model_json = read_model_json(config.models[0])
    resolved = resolve(config, model_json, 1)
    deployment: Deployment = plan_deployment(resolved, model_json, [2**40] * 7)
    return CheckReport(resolved, deployment, ())


def test_ranks_that_hold_the_same_share_a_column(uneven: CheckReport) -> None:
    file = io.StringIO()
    print_report(uneven, file)
    text = file.getvalue()
    assert "hopper 0-3" in text
    assert "hopper 4-6" in text
    assert "36 to 37" in text
    assert "\x1b" not in text


def test_a_narrow_plain_output_keeps_every_number(
    uneven: CheckReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    file = io.StringIO()
    print_report(uneven, file)
    assert "…" not in file.getvalue()
    assert Console(file=file).width == 40
