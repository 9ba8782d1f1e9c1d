"""The pace of emulated devices beside the planner's own numbers."""

from pathlib import Path

import pytest
from moe_devices.work import AttentionWork, ExpertsWork, LinkWork
from moe_placement.cost.coefficients import load_coefficients
from moe_placement.cost.parallelism import Parallelism
from moe_placement.cost.step_model import StepModel
from moe_placement.cost.step_shape import StepShape
from moe_placement.hardware.catalogue import find_device
from moe_placement.hardware.curves import expert_curve
from moe_placement.hardware.device import DeviceSpec
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import PoolPlan

from moe_serve.config.tree import LinkConfig
from moe_serve.control.planning.deployment import read_spec
from moe_serve.control.planning.pace import pace_of
from moe_serve.demo_config import demo_config

DEVICES = Path(__file__).parents[4] / "configs" / "devices"
KINDS = ("gpu_like", "npu_like", "cpu_like")


def made_up(kind: str) -> DeviceSpec:
    return find_device(DEVICES / f"{kind}.yaml")


@pytest.fixture
def spec() -> ModelSpec:
    return read_spec(demo_config())


def pool(num_ranks: int = 1, tensor_parallel: int = 1, num_ep_groups: int = 1) -> PoolPlan:
    return PoolPlan(
        "fast",
        "emulated",
        tuple(range(num_ranks)),
        weight_format="bfloat16",
        tensor_parallel=tensor_parallel,
        num_ep_groups=num_ep_groups,
    )


def decoding(first_layer: int, end_layer: int | None, sequences: int = 21) -> AttentionWork:
    return AttentionWork(
        first_layer=first_layer,
        end_layer=end_layer,
        num_decoding=sequences,
        decode_context=sequences * 100,
    )


@pytest.mark.parametrize(
    "device", [*map(made_up, KINDS), find_device("h20")], ids=lambda device: device.name
)
@pytest.mark.parametrize("rows", [(0, 0), (1, 0), (5, 7), (64, 0), (300, 212)])
def test_experts_take_what_the_solver_takes_them_for(
    spec: ModelSpec, device: DeviceSpec, rows: tuple[int, ...]
) -> None:
    pace = pace_of(device, spec, pool(), "bfloat16", {})
    active = sum(count > 0 for count in rows)
    expected = expert_curve(device, "bfloat16").seconds(
        active * spec.expert_bytes("bfloat16"), 2.0 * spec.mlp.expert * sum(rows)
    )
    assert pace(ExpertsWork(rows)) == expected > 0


def test_a_rank_without_experts_takes_no_time_for_them(spec: ModelSpec) -> None:
    device = made_up("cpu_like")
    assert pace_of(device, spec, pool(), "bfloat16", {})(ExpertsWork(())) == 0.0


@pytest.mark.parametrize(("num_ranks", "tensor_parallel"), [(1, 1), (2, 1), (2, 2), (4, 2)])
def test_attention_adds_up_to_the_planners_step_without_experts(
    spec: ModelSpec, num_ranks: int, tensor_parallel: int
) -> None:
    device = made_up("npu_like")
    pace = pace_of(device, spec, pool(num_ranks, tensor_parallel), "bfloat16", {})
    groups = num_ranks // tensor_parallel
    parallelism = Parallelism(
        tensor_parallel=tensor_parallel, data_parallel=groups, expert_parallel=num_ranks
    )
    model = StepModel(spec, device, parallelism, "bfloat16", "bfloat16", load_coefficients())
    parts = model.parts(StepShape(decode_sequences=21 * groups, decode_context=100))
    segments = [decoding(0, 2), decoding(2, 3), decoding(3, 4), decoding(4, None)]
    expected = sum(seconds for part, seconds in parts.items() if part != "experts")
    assert sum(map(pace, segments)) == pytest.approx(expected, rel=1e-12)
    assert pace(segments[1]) == pace(segments[3]) == pytest.approx(pace(segments[0]) / 2)


def test_runs_of_a_pool_are_workers_of_their_own(spec: ModelSpec) -> None:
    device = made_up("npu_like")
    split = pace_of(device, spec, pool(4, num_ep_groups=2), "bfloat16", {})
    alone = pace_of(device, spec, pool(2), "bfloat16", {})
    assert split(decoding(0, None)) == alone(decoding(0, None))


def test_prompts_take_longer_than_decoding_as_much_and_nothing_takes_nothing(
    spec: ModelSpec,
) -> None:
    pace = pace_of(made_up("gpu_like"), spec, pool(), "bfloat16", {})
    prompt = AttentionWork(
        first_layer=0, end_layer=None, num_prompt_tokens=256, prompt_context=256 * 128
    )
    assert pace(prompt) > 2 * pace(decoding(0, None))
    assert pace(AttentionWork(first_layer=0, end_layer=None)) == 0.0


def test_links_carry_at_the_same_time(spec: ModelSpec) -> None:
    links = {
        "fast>slow": LinkConfig(between=("fast", "slow"), bandwidth=1e6, latency=0.001),
        "fast>host": LinkConfig(between=("host", "fast"), bandwidth=1e5, latency=0.0),
    }
    pace = pace_of(find_device("h20"), spec, pool(), "bfloat16", links)
    assert pace(LinkWork({})) == 0.0
    assert pace(LinkWork({"fast>slow": 1000})) == pytest.approx(0.002)
    assert pace(LinkWork({"fast>slow": 1000, "fast>host": 1000})) == pytest.approx(0.01)


@pytest.mark.parametrize("weight_format", ["float32", "bfloat16", "float16", "int8"])
def test_made_up_devices_compute_experts_at_four_two_one(
    spec: ModelSpec, weight_format: str
) -> None:
    seconds = [
        expert_curve(made_up(kind), weight_format).seconds(num_bytes, num_flops)
        for num_bytes in (0.0, 8.0 * spec.expert_bytes(weight_format))
        for num_flops in (0.0, 256.0 * spec.mlp.expert)
        for kind in KINDS
    ]
    for fast, middle, slow in zip(*[iter(seconds)] * 3, strict=True):
        assert [middle, slow] == pytest.approx([2 * fast, 4 * fast])


def test_made_up_devices_say_so() -> None:
    for kind in KINDS:
        device = made_up(kind)
        assert set(device.sources.values()) == {"made up for emulation"}
