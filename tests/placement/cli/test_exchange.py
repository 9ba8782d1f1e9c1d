"""Other engines' records of load in, placements for them out, by the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from moe_placement.cli.exchange import read_any_load
from moe_placement.cli.main import main
from moe_placement.cli.parser import UsageError
from moe_placement.load.formats.eplb_arrays import read_eplb_arrays
from moe_placement.load.formats.tensorrt_llm import read_load_balancer
from moe_placement.load.formats.vllm_ascend import read_expert_map
from moe_placement.model.catalogue import find_model
from moe_placement.plan import LayerPlan

SOLVE = "solve --model mixtral_8x7b --devices a100_sxm:4 --rate 1 --prompt-tokens 200 "
SOLVE += "--output-tokens 50 --weights bfloat16 --redundancy 0.5"
NUM_LAYERS, NUM_EXPERTS, NUM_RANKS = 32, 8, 4


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One expert of each layer takes most of the tokens."""
    counts = np.full((NUM_LAYERS, NUM_EXPERTS), 10)
    counts[:, 3] = 90
    path = tmp_path_factory.mktemp("dump") / "expert-load.json"
    path.write_text(json.dumps({"load_history": [{"logical_expert_load": counts.tolist()}]}))
    return path


@pytest.fixture(scope="module")
def exported(dump: Path) -> dict[str, dict[int, LayerPlan]]:
    """What each format says of one question's answer."""
    files = {
        "eplb": dump.with_name("slots.npz"),
        "tensorrt-llm": dump.with_name("balancer.yaml"),
        "vllm-ascend": dump.with_name("expert_map.json"),
    }
    for kind, path in files.items():
        words = f"{SOLVE} --load adrs:{dump} --export {kind}:{path} --json"
        assert main(words.split()) == 0
    return {
        "eplb": read_eplb_arrays(files["eplb"], num_ranks=NUM_RANKS),
        "tensorrt-llm": read_load_balancer(files["tensorrt-llm"], num_ranks=NUM_RANKS),
        "vllm-ascend": read_expert_map(files["vllm-ascend"]),
    }


def test_a_placement_for_another_engine_shares_rows_evenly(
    exported: dict[str, dict[int, LayerPlan]],
) -> None:
    plans = exported["eplb"]
    assert sorted(plans) == list(range(NUM_LAYERS))
    for plan in plans.values():
        assert {len(experts) for experts in plan.slots} == {3}
        held = [expert for experts in plan.slots for expert in experts]
        assert set(held) == set(range(NUM_EXPERTS))
        assert held.count(3) == max(held.count(expert) for expert in range(NUM_EXPERTS)) == 4


def test_all_formats_say_the_same(exported: dict[str, dict[int, LayerPlan]]) -> None:
    assert exported["eplb"] == exported["tensorrt-llm"] == exported["vllm-ascend"]


def test_a_dump_is_read_by_the_kind_before_its_name(dump: Path) -> None:
    spec = find_model("mixtral_8x7b")
    load = read_any_load(f"adrs:{dump}", spec, "mixtral")
    assert load.layers == spec.moe_layers
    assert load.shares[0, 3] == pytest.approx(90 / 160)
    with pytest.raises(UsageError, match="has one file"):
        read_any_load(f"adrs:{dump},{dump}", spec, "mixtral")


@pytest.mark.parametrize("text", ["eplb", "eplb:", "megatron:file"])
def test_an_unknown_kind_is_refused_before_the_search(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SOLVE.split(), "--export", text]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"--export {text}: write KIND:FILE; the kinds are eplb, tensorrt-llm" in error
