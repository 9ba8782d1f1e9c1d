"""Which pool does which phase: what `role: auto` becomes, what stays, and the reasons."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from moe_placement.hardware.catalogue import find_device
from moe_placement.plan_file import save

from moe_serve.check import check
from moe_serve.config.load import load_config
from moe_serve.config.resolve import resolve
from moe_serve.config.tree import Config
from moe_serve.control.meeting.world import LaunchedWorld
from moe_serve.control.planning.deployment import Deployment
from moe_serve.control.planning.phases import plan_phases
from moe_serve.control.planning.role_choices import role_choices, roles_of, with_roles
from moe_serve.demo_config import demo_config
from moe_serve.errors import ConfigError, PlacementError

MIXED = Path(__file__).parents[4] / "configs" / "mixed_six.yaml"
AUTO = ("pools.0.role=auto", "pools.1.role=auto", "pools.2.role=auto")
WORKLOAD = "placement.workload={rate: 2/s, prompt_tokens: 1000, output_tokens: 100}"
APART = ("prefill", "decode", "experts")
TOGETHER = ("both", "both", "experts")
DENSE: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


def planned(*overrides: str, model: Mapping[str, Any] | None = None) -> tuple[Config, Deployment]:
    model = model or demo_config()
    config = resolve(load_config(MIXED, [WORKLOAD, *overrides]), model, 1)
    memory = [pool.memory for pool in config.pools for _ in range(pool.ranks)]
    return plan_phases(config, model, memory)


def test_over_a_fast_link_unlike_devices_share_the_phases() -> None:
    config, deployment = planned(*AUTO)
    assert roles_of(config) == tuple(pool.role for pool in deployment.plan.pools) == APART
    assert deployment.plan.ep_groups() == {1: (0, 1), 0: (2, 3, 4, 5)}
    chosen, other, *experts = deployment.reasons
    assert chosen.startswith("roles chosen: gpu prefill, npu decode, host experts: TTFT")
    assert "at 2 requests/s" in chosen and "MB, take" in chosen and "bound by" in chosen
    assert other.startswith("roles: disaggregate, apart serves 1.")
    assert "together (gpu both, npu both, host experts) gives TTFT" in other
    assert [reason.split(":")[0] for reason in experts] == ["experts a layer"] * 2
    again = planned(*AUTO)
    assert again[0] == config
    assert (again[1].plan, again[1].reasons) == (deployment.plan, deployment.reasons)


def test_a_link_too_slow_for_keys_and_values_keeps_the_phases_together() -> None:
    config, deployment = planned(*AUTO, "links.0.bandwidth=100kB/s")
    assert roles_of(config) == TOGETHER
    said = next(reason for reason in deployment.reasons if "do not disaggregate" in reason)
    assert "apart (gpu prefill, npu decode, host experts) gives TTFT without end" in said
    # 1000 tokens, 4 layers, 80 elements of a latent and a rotary key, 4 bytes each.
    assert "1.28 MB, take 12.8 s over gpu>npu, 12.4 s of it after the prefill" in said


def test_service_levels_decide_where_both_ways_serve() -> None:
    levels = "placement.workload.slo={ttft: 450ms, tpot: 10ms}"
    config, deployment = planned(*AUTO, levels)
    assert roles_of(config) == TOGETHER
    assert "together alone serves what is asked for" in deployment.reasons[1]
    config, deployment = planned(*AUTO, "placement.workload.slo={ttft: 50ms}")
    assert "TTFT is 403 ms, 50 ms is asked for" in deployment.reasons[1]
    assert "nearer to what is asked for" in deployment.reasons[2]


def test_roles_that_are_given_stay_and_are_compared() -> None:
    config, deployment = planned("pools.0.role=decode", "pools.1.role=prefill")
    assert roles_of(config) == ("decode", "prefill", "experts")
    given, *others = deployment.reasons
    assert given.startswith("roles given: gpu decode, npu prefill, host experts: TTFT without end")
    assert "misses" in others[0] and "more requests come than" in others[0]
    assert others[1].startswith("roles: better not so, together alone")
    assert others[2].startswith("roles: better not so, apart alone serves what is asked for: gpu p")
    config, deployment = planned("pools.1.role=auto")
    assert roles_of(config) == TOGETHER
    assert "better not so, apart serves" in deployment.reasons[1]


def test_a_way_without_room_is_not_chosen() -> None:
    config, _ = planned(*AUTO, "pools.1.memory=105MiB")
    assert roles_of(config)[1] != "decode"


def test_ranks_that_share_attention_share_what_crosses() -> None:
    """But a latent, of which each that decodes needs a copy."""
    alone = "1.28 MB, take 0.138 ms over gpu>npu"
    assert alone in planned(*AUTO, "pools.0.attention.tensor_parallel=2")[1].reasons[0]
    copies = "2.56 MB, take 0.266 ms over gpu>npu"
    assert copies in planned(*AUTO, "pools.1.attention.tensor_parallel=2")[1].reasons[0]
    both = ["pools.0.attention.tensor_parallel=2", "pools.1.attention.tensor_parallel=2"]
    given = ("pools.0.role=prefill", "pools.1.role=decode", "pools.2.role=experts")
    said = planned(*given, *both)[1].reasons[0]
    assert "2.56 MB, take 0.138 ms over gpu>npu" in said


def test_what_fits_in_no_way_is_said_as_without_roles() -> None:
    small = [f"pools.{index}.memory=16MiB" for index in range(3)]
    config, deployment = planned(*AUTO, *small)
    assert roles_of(config) == TOGETHER and deployment.problems
    assert "has no room for the model" in deployment.reasons[0]
    with pytest.raises(PlacementError, match="slot"):
        planned(*AUTO, *small, "pools.2.memory=1MiB")
    with pytest.raises(ConfigError, match="in one expert-parallel group and no link joins them"):
        planned(*AUTO, "links=[]", "pools.2.device=cpu")


def test_short_prompts_are_computed_where_they_are_decoded() -> None:
    short = "scheduler.max_local_prefill=1000"
    assert roles_of(planned(*AUTO, short)[0]) == TOGETHER
    _, deployment = planned("pools.0.role=prefill", "pools.1.role=decode", short)
    assert "prompts of 1000 tokens are computed where they are decoded" in deployment.reasons[1]


def test_a_dense_model_has_phases_too() -> None:
    two = ["pools.2.role=both", "pools.2.name=npu2", "pools.0.role=auto", "pools.1.role=auto"]
    links = "links=[{between: [gpu, npu], bandwidth: 10GB/s}, {between: [gpu, npu2], "
    links += "bandwidth: 10GB/s}, {between: [npu, npu2], bandwidth: 10GB/s}]"
    config, deployment = planned(*two, links, model=DENSE)
    assert config.pools[2].role == "both"
    assert deployment.reasons[0].startswith("roles chosen: gpu ")


def test_without_a_workload_or_hardware_nothing_is_predicted() -> None:
    _, deployment = planned("placement.workload={}")
    assert not any(reason.startswith("roles") for reason in deployment.reasons)
    unnamed = [
        f"pools.{index}.{key}" for index in range(3) for key in ("hardware=''", "device=cpu")
    ]
    _, deployment = planned(*unnamed)
    assert deployment.reasons[0].endswith("pool 'gpu' names no hardware")


def test_a_plan_file_runs_even_if_nothing_can_be_predicted_of_it(tmp_path: Path) -> None:
    _, deployment = planned()
    save(deployment.plan, tmp_path / "plan.json")
    in_file = f"placement.plan={tmp_path / 'plan.json'}"
    _, found = planned(in_file)
    assert found.plan == deployment.plan
    assert found.reasons[0].startswith("roles given: gpu both, npu both, host experts: TTFT 403 ms")
    device = (MIXED.parent / "devices" / "npu_like.yaml").read_text()
    narrow = re.sub(r"float32: (?=8GFLOP|&)", "int4: ", device)
    assert narrow.count("int4") == 2
    (tmp_path / "narrow.yaml").write_text(narrow)
    _, found = planned(in_file, f"pools.1.hardware={tmp_path / 'narrow.yaml'}")
    assert found.plan == deployment.plan
    (reason,) = found.reasons
    assert "nothing is predicted" in reason and "cannot compute with float32 weights" in reason


def test_all_phases_are_somebodys_in_every_choice() -> None:
    config = load_config(MIXED, [WORKLOAD, *AUTO])
    hardware = {pool.name: find_device(pool.hardware) for pool in config.pools}
    swapped = ("decode", "prefill", "experts")
    assert role_choices(config, hardware) == [TOGETHER, APART, swapped]
    assert role_choices(with_roles(config, ("auto", "both", "auto")), hardware) == [
        TOGETHER,
        ("prefill", "both", "experts"),
    ]
    given = ("prefill", "auto", "auto")
    assert role_choices(with_roles(config, given), hardware) == [APART]
    cpus = dict.fromkeys(hardware, hardware["host"])
    assert ("prefill", "prefill", "decode") in role_choices(config, cpus)


def test_more_ways_than_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe_serve.control.planning.role_choices.MOST_WAYS", 2)
    too_many = "2 pools can share the phases in 4 ways, 2 at most are compared"
    with pytest.raises(ConfigError, match=rf"pools\[\.\.\]\.role: {too_many}; give some of them"):
        planned(*AUTO)
    given = planned("pools.0.role=both", "pools.1.role=both")[1]
    assert given.reasons[1].startswith(f"roles: other ways are not compared: {too_many}")


def test_check_says_what_roles_were_chosen_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(MIXED, [WORKLOAD, *AUTO])
    assert check(config, LaunchedWorld(), as_json=False) == 0
    said = capsys.readouterr().out
    assert "plan  roles chosen: gpu prefill, npu decode, host experts: TTFT " in said
    for index, role in enumerate(APART):
        assert f"chosen  pools[{index}].role: {role}" in said
