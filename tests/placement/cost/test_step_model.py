import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from moe_placement.cost.coefficients import ENGINES, Coefficients
from moe_placement.cost.parallelism import Parallelism
from moe_placement.cost.step_model import StepModel
from moe_placement.cost.step_shape import StepShape
from moe_placement.hardware.catalogue import find_device
from moe_placement.hardware.device import DeviceSpec, ExpertCurve, Plane
from moe_placement.model.catalogue import find_model
from moe_placement.model.spec import ModelSpec

MakeModel = Callable[..., StepModel]
DECODE = StepShape(decode_sequences=32, decode_context=2000)
PREFILL = StepShape(prefill_tokens=4096, prefill_context=2048)


@pytest.mark.parametrize("shape", [DECODE, PREFILL])
def test_parts_sum_to_the_step(make_model: MakeModel, shape: StepShape) -> None:
    parts = make_model().parts(shape)
    assert min(parts.values()) >= 0
    assert make_model().seconds(shape) == pytest.approx(sum(parts.values()))


def test_a_step_without_tokens_takes_no_time(make_model: MakeModel) -> None:
    assert make_model().seconds(StepShape()) == 0
    assert make_model().parts(StepShape()) == {}


@pytest.mark.parametrize(
    "more",
    [
        {"decode_sequences": 64},
        {"decode_context": 4000},
        {"prefill_tokens": 512, "prefill_context": 256},
        {"decode_tokens_per_sequence": 2},
    ],
)
def test_more_takes_longer(make_model: MakeModel, more: dict[str, float]) -> None:
    model = make_model()
    assert model.seconds(replace(DECODE, **more)) > model.seconds(DECODE)


def test_no_step_beats_the_peaks(
    make_model: MakeModel, qwen: ModelSpec, hopper: DeviceSpec
) -> None:
    model = make_model(parallelism=Parallelism(), coefficients=Coefficients())
    flops = sum(qwen.flops_per_token[part] for part in ("attention", "gate", "experts"))
    assert model.seconds(PREFILL) > PREFILL.prefill_tokens * flops / hopper.flops["fp8"]
    one = StepShape(decode_sequences=1, decode_context=1)
    active = qwen.active_parameters - qwen.embedding
    assert model.seconds(one) > active / hopper.bandwidth


@pytest.mark.parametrize("name", ["bandwidth", "link_bandwidth"])
def test_a_faster_device_is_faster(make_model: MakeModel, hopper: DeviceSpec, name: str) -> None:
    faster = replace(hopper, **{name: 2 * getattr(hopper, name)})
    assert make_model(device=faster).seconds(DECODE) < make_model().seconds(DECODE)


def test_decoding_reads_weights_and_prefill_multiplies_them(
    make_model: MakeModel, hopper: DeviceSpec
) -> None:
    reader = make_model(device=replace(hopper, bandwidth=2 * hopper.bandwidth))
    flops = {name: 2 * value for name, value in hopper.flops.items()}
    multiplier = make_model(device=replace(hopper, flops=flops))
    assert reader.parts(DECODE)["experts"] < multiplier.parts(DECODE)["experts"]
    assert reader.parts(PREFILL)["experts"] > multiplier.parts(PREFILL)["experts"]


def test_experts_touched_are_few_for_one_token_and_all_for_many(
    make_model: MakeModel, qwen: ModelSpec
) -> None:
    price = make_model(parallelism=Parallelism()).price

    def touched(tokens: float) -> float:
        idle = (1 + tokens * price.chosen_share) ** -price.popularity_shape
        return price.experts * (1 - idle)

    assert touched(1) == pytest.approx(qwen.num_experts_per_token, rel=0.1)
    assert touched(16) < 16 * qwen.num_experts_per_token
    assert touched(1e5) == pytest.approx(qwen.num_experts, rel=0.01)


def test_four_bit_weights_read_faster(make_model: MakeModel, blackwell: DeviceSpec) -> None:
    wide = make_model(device=blackwell).parts(DECODE)["experts"]
    assert make_model(device=blackwell, weight_format="fp4").parts(DECODE)["experts"] < wide


def test_an_unknown_engine_is_the_mean_of_those_known(make_model: MakeModel) -> None:
    known = [make_model(engine=engine).parts(DECODE)["kernels"] for engine in ENGINES]
    mean = sum(known) / len(known)
    assert make_model(engine="").parts(DECODE)["kernels"] == pytest.approx(mean)


def test_a_group_across_nodes_exchanges_more_slowly(make_model: MakeModel) -> None:
    inside = Parallelism(tensor_parallel=8, expert_parallel=8)
    across = Parallelism(tensor_parallel=16, expert_parallel=16)
    slow = make_model(parallelism=across).parts(PREFILL)["exchange"]
    assert slow > 2 * make_model(parallelism=inside).parts(PREFILL)["exchange"]


def test_pipeline_stages_each_take_their_share_of_the_tokens(make_model: MakeModel) -> None:
    one, two = Parallelism(), Parallelism(pipeline_stages=2)
    half = replace(DECODE, decode_sequences=DECODE.decode_sequences / 2)
    staged = make_model(parallelism=two).seconds(DECODE)
    assert staged == make_model(parallelism=one).seconds(half)


def test_a_call_takes_under_twenty_microseconds(make_model: MakeModel) -> None:
    model, best = make_model(), float("inf")
    for _ in range(5):
        start = time.process_time()
        for _ in range(1000):
            model.seconds(DECODE)
        best = min(best, (time.process_time() - start) / 1000)
    assert best < 20e-6


def test_an_attention_group_that_is_fuller_holds_up_its_own_parts_alone() -> None:
    groups = Parallelism(data_parallel=8, expert_parallel=8)
    spec, device = find_model("mixtral_8x7b"), find_device("h200_sxm")
    model = StepModel(spec, device, groups, "bfloat16", "bfloat16", Coefficients())
    even = StepShape(prefill_tokens=4000, prefill_context=2000)
    spread, lone = model.parts(even), model.parts(replace(even, prefill_imbalance=8.0))
    assert lone["experts"] == spread["experts"]
    assert lone["attention"] == pytest.approx(8 * spread["attention"])
    assert lone["dense"] > 2 * spread["dense"]


def test_experts_that_were_measured_cost_what_was_measured(
    make_model: MakeModel, qwen: ModelSpec, hopper: DeviceSpec
) -> None:
    curve = ExpertCurve((Plane(1e-4, 2e-13, 0.0), Plane(0.0, 0.0, 4e-15)))
    device = replace(hopper, curves={"fp8": curve})
    model = make_model(device=device, parallelism=Parallelism())
    flops = qwen.flops_per_token["experts"] * PREFILL.prefill_tokens
    rows = curve.seconds(0.0, flops / len(qwen.moe_layers)) * len(qwen.moe_layers)
    assert model.parts(PREFILL)["experts"] == pytest.approx(rows)
    before = make_model(parallelism=Parallelism()).parts(PREFILL)
    assert {**model.parts(PREFILL), "experts": 0.0} == {**before, "experts": 0.0}
    channels = make_model(device=device, weight_format="fp8_channel").parts(DECODE)
    assert channels["experts"] > len(qwen.moe_layers) * curve.planes[0].fixed
    assert channels["experts"] != make_model(weight_format="fp8_channel").parts(DECODE)["experts"]
