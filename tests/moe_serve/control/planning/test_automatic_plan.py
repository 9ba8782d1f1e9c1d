"""What `plan: auto` becomes: an equal split, ranks with as many rows, or as long, each."""

from pathlib import Path

import numpy as np
import pytest
from moe_placement.equal_split import equal_split
from moe_placement.load.trace import ExpertLoad
from moe_placement.load.trace_file import save
from moe_placement.model.catalogue import find_model
from moe_placement.plan import Plan

from moe_serve.config.tree import Config, LinkConfig, ModelConfig, PlacementConfig, PoolConfig
from moe_serve.control.planning.deployment import Deployment, plan_deployment, pool_plans
from moe_serve.errors import ConfigError, PlacementError

LEFT_RIGHT = (
    PoolConfig(name="left", device="cpu", ranks=2, weights="bfloat16"),
    PoolConfig(name="right", device="cpu", weights="bfloat16"),
)
# Two experts have most of the rows, and an equal split puts both on one rank.
LOADS = (400, 300, 30, 50, 60, 20, 80, 60)
MIXTRAL = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
LINK = LinkConfig(between=("fast", "slow"), bandwidth=1e12)


def deployment(
    placement: PlacementConfig | None = None,
    pools: tuple[PoolConfig, ...] = LEFT_RIGHT,
    links: tuple[LinkConfig, ...] = (),
    memory: int = 1 << 30,
) -> Deployment:
    model = ModelConfig(path="m", name="m", dtype="bfloat16", max_context=2048)
    config = Config(
        models=(model,), pools=pools, links=links, placement=placement or PlacementConfig()
    )
    return plan_deployment(config, MIXTRAL, [memory] * config.num_ranks)


@pytest.fixture
def trace(tmp_path: Path) -> str:
    counts_TLE = np.tile(np.array(LOADS), (2, 2, 1))
    path = tmp_path / "load.npz"
    save(
        ExpertLoad(model="m", layers=(0, 1), counts_TLE=counts_TLE, steps_per_window=8),
        path,
    )
    return str(path)


def fullest(plan: Plan) -> float:
    """The fullest rank's rows over the mean rank's, in the first layer."""
    layer = plan.layers[0]
    rows = [
        sum(LOADS[expert] * weight for expert, weight in zip(slots, weights, strict=True))
        for slots, weights in zip(layer.slots, layer.weights, strict=True)
    ]
    return max(rows) * len(rows) / sum(rows)


def test_without_a_trace_experts_are_split_evenly() -> None:
    found = deployment()
    assert found.plan == equal_split("m", 8, (0, 1), found.plan.pools)
    assert "split evenly" in found.reasons[0]


def test_a_trace_evens_out_rows_and_replicas_more_so(trace: str) -> None:
    even = deployment().plan
    by_load = deployment(PlacementConfig(load=trace)).plan
    wanted = PlacementConfig(load=trace, redundancy=0.25)
    with_replicas = deployment(wanted).plan
    assert fullest(even) > 1.8
    assert fullest(by_load) == pytest.approx(1.26)
    assert fullest(with_replicas) == pytest.approx(1.0, abs=1e-6)
    assert sum(map(len, by_load.layers[0].slots)) == 8
    assert 8 < sum(map(len, with_replicas.layers[0].slots)) <= 10
    assert deployment(wanted).plan == with_replicas


def test_a_trace_of_another_model_is_refused(trace: str, tmp_path: Path) -> None:
    other = find_model("qwen3_30b_a3b")
    path = tmp_path / "other.npz"
    counts = np.ones((1, len(other.moe_layers), other.num_experts), np.int64)
    save(
        ExpertLoad(model="q", layers=other.moe_layers, counts_TLE=counts, steps_per_window=1), path
    )
    with pytest.raises(
        PlacementError, match=r"other\.npz: has 48 layers of 128 experts, the model"
    ):
        deployment(PlacementConfig(load=str(path)))
    with pytest.raises(PlacementError, match=r"none\.npz cannot be read"):
        deployment(PlacementConfig(load="none.npz"))


def unlike(slow: str = "xeon_8592", **more: object) -> tuple[PoolConfig, ...]:
    return (
        PoolConfig(name="fast", device="cpu", weights="bfloat16", hardware="h20"),
        PoolConfig(name="slow", device="cpu", weights="bfloat16", hardware=slow, **more),  # type: ignore[arg-type]
    )


def slots_of(plan: Plan, rank: int) -> int:
    return len(plan.layers[0].slots[rank])


def test_the_faster_device_gets_more_experts(trace: str) -> None:
    found = deployment(pools=unlike(), links=(LINK,))
    assert slots_of(found.plan, 0) > slots_of(found.plan, 1)
    assert "bound by" in found.reasons[0] and "fast" in found.reasons[0]
    alike = deployment(pools=unlike(slow="h20"), links=(LINK,))
    assert slots_of(alike.plan, 0) == slots_of(alike.plan, 1) == 4


def test_a_device_gets_no_more_experts_than_fit() -> None:
    plenty = deployment(pools=unlike(), links=(LINK,))
    asked = slots_of(plenty.plan, 0)
    first, expert = plenty.memories[0], 3 * 256 * 512 * 2
    cache = 2048 // first.page_size * first.page_bytes
    # Room for one expert fewer a layer than it would get.
    room = first.other_weights + first.working_space + cache + 2 * (asked - 1) * expert
    small = deployment(pools=unlike(), links=(LINK,), memory=int(room / 0.9) + expert)
    assert slots_of(small.plan, 0) == asked - 1
    assert not small.problems
    with pytest.raises(PlacementError, match="slot"):
        deployment(pools=unlike(), links=(LINK,), memory=expert)


def test_hardware_is_named_for_all_pools_of_a_group_or_none() -> None:
    half = (LEFT_RIGHT[0], unlike()[1])
    with pytest.raises(PlacementError, match="'left' names no hardware and 'slow' does"):
        deployment(pools=half, links=(LinkConfig(between=("left", "slow"), bandwidth=1e9),))
    with pytest.raises(ConfigError, match=r"pools\[1\].hardware: device 'h200x' is not"):
        deployment(pools=unlike(slow="h200x"), links=(LINK,))


def test_prefill_pools_are_an_expert_parallel_group_of_their_own() -> None:
    pools = (
        PoolConfig(name="one", device="cpu", ranks=2, role="prefill", weights="bfloat16"),
        PoolConfig(name="two", device="cpu", ranks=2, role="decode", weights="bfloat16"),
        PoolConfig(name="three", device="cpu", role="experts", weights="bfloat16"),
    )
    found = deployment(pools=pools)
    assert found.plan.ep_groups() == {1: (0, 1), 0: (2, 3, 4)}
    for rank, num_slots in enumerate((4, 4, 3, 3, 2)):
        assert slots_of(found.plan, rank) == num_slots
    assert [plan.ep_group for plan in pool_plans(Config(models=(), pools=pools[:1]))] == [0]


def test_unlike_pools_of_one_group_need_a_link() -> None:
    pools = (LEFT_RIGHT[0], PoolConfig(name="gpu", device="cuda", weights="bfloat16"))
    with pytest.raises(ConfigError, match=r'"left" \(cpu\) and "gpu" \(cuda\) .* no link joins'):
        deployment(pools=pools)
    deployment(pools=pools, links=(LinkConfig(between=("gpu", "left"), bandwidth=1e9),))


def test_what_is_emulated_makes_emulated_pools_unlike() -> None:
    def emulated(name: str, hardware: str) -> PoolConfig:
        return PoolConfig(name=name, device="emulated", hardware=hardware, weights="bfloat16")

    link = LinkConfig(between=("fast", "slow"), bandwidth=1e9)
    unlike = (emulated("fast", "h20"), emulated("slow", "a100_sxm"))
    with pytest.raises(ConfigError, match=r'"fast" \(emulated h20\) and "slow" \(emulated a100'):
        deployment(pools=unlike)
    deployment(pools=unlike, links=(link,))
    like = (emulated("fast", "h20"), emulated("slow", "h20"))
    deployment(pools=like)


def test_hardware_without_the_pool_s_weight_format_is_refused() -> None:
    pools = tuple(
        PoolConfig(name=name, device="cpu", hardware="h20", weights="float32")
        for name in ("left", "right")
    )
    with pytest.raises(ConfigError, match=r"hardware: h20 cannot compute with float32 weights"):
        deployment(pools=pools)


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        (("experts", "experts"), "no pool beside it has attention"),
        (("prefill", "experts"), "none does decode"),
        (("decode", "experts"), "none does prefill"),
    ],
)
def test_a_phase_that_is_nobodys_is_refused(roles: tuple[str, str], said: str) -> None:
    pools = tuple(
        PoolConfig(name=f"p{number}", device="cpu", role=role, weights="bfloat16")
        for number, role in enumerate(roles)
    )
    with pytest.raises(ConfigError, match=said):
        deployment(pools=pools)
