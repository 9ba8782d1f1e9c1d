"""Which rank and which share each of several models gets, and what does not fit."""

from typing import Any

import pytest

from moe_serve.config.tree import ModelConfig, SliceConfig
from moe_serve.control.planning.slices import Need, SlicePlan
from moe_serve.errors import PlacementError
from moe_serve.messages import ALL_RANKS

MIB = 1 << 20
GIB = 1 << 30
TWO = (GIB, GIB)
EXPERTS = Need(memory=64 * MIB, has_experts=True)
DENSE = Need(memory=64 * MIB)


def model(name: str, percent: int = 0, mib: int = 0, **fields: Any) -> ModelConfig:
    slice_fields = {key: fields.pop(key) for key in ("mode", "isolate") if key in fields}
    asked = SliceConfig(compute_percent=percent, memory_mb=mib, **slice_fields)
    return ModelConfig(path=f"/models/{name}", name=name, slice=asked, **fields)


def plan_of(*models: tuple[ModelConfig, Need], budgets: tuple[int, ...] = TWO) -> SlicePlan:
    plan = SlicePlan(budgets)
    return plan.with_models(
        [each for each, _ in models], [need for _, need in models], range(len(models))
    )


def test_a_model_with_experts_is_on_all_ranks_and_others_beside_it_on_one_each() -> None:
    plan = plan_of(
        (model("big", 40, 256), EXPERTS), (model("a", 50, 128), DENSE), (model("b", 50, 128), DENSE)
    )
    assert plan.tenant(0).rank == ALL_RANKS
    assert {plan.tenant(1).rank, plan.tenant(2).rank} == {0, 1}
    assert plan.free_share(0) == pytest.approx(0.1)


def test_what_nobody_asks_for_is_shared_evenly_by_those_who_do_not_say() -> None:
    plan = plan_of(
        (model("a", 40, 512), DENSE), (model("b"), DENSE), (model("c"), DENSE), budgets=(GIB,)
    )
    assert [each.share for each in plan.tenants] == pytest.approx([0.4, 0.3, 0.3])
    assert [each.memory // MIB for each in plan.tenants] == [512, 256, 256]


def test_what_a_model_needs_that_says_nothing_is_kept_for_it() -> None:
    large = Need(memory=900 * MIB)
    plan = plan_of(
        (model("a", rank=0), large),
        (model("c", 50, 64, rank=1), DENSE),
        (model("b", 10, 256), DENSE),
    )
    assert plan.tenant(2).rank == 1 and plan.tenant(0).memory == GIB


def test_an_encoder_that_does_not_say_gets_what_it_needs() -> None:
    encoder = Need(memory=10 * MIB, is_elastic=False)
    plan = plan_of((model("a", 50), DENSE), (model("e", 50), encoder), budgets=(GIB,))
    assert plan.tenant(1).memory == 10 * MIB
    assert plan.tenant(0).memory == GIB - 10 * MIB


def test_a_model_stays_on_the_rank_that_it_asks_for() -> None:
    plan = plan_of((model("a", 60, 64, rank=1), DENSE), (model("b", 60, 64), DENSE))
    assert (plan.tenant(0).rank, plan.tenant(1).rank) == (1, 0)
    assert plan_of((model("m", 9, 64, spread="one"), EXPERTS)).tenant(0).rank in (0, 1)
    assert plan_of((model("d", 9, 64, spread="all"), DENSE)).tenant(0).rank == ALL_RANKS


def test_processors_of_its_own_are_those_of_one_rank_also_where_there_is_one() -> None:
    own = model("a", 50, 64, isolate="sm")
    assert plan_of((own, DENSE), budgets=(GIB,)).tenant(0).rank == 0
    assert plan_of((model("b", 50, 64), DENSE), budgets=(GIB,)).tenant(0).rank == ALL_RANKS


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (
            ((model("a", 60, 64, mode="hard"), DENSE), (model("b", 50, 64, mode="hard"), DENSE)),
            r"rank 0 has 100 percent.* is asked for 110 \(a 60, b 50\)",
        ),
        (
            ((model("a", 50, 700), DENSE), (model("b", 50, 400), DENSE)),
            r"rank 0 has 1024 MiB for its models and is asked for 1100 \(a 700, b 400\)",
        ),
        (
            ((model("a", 100, 64), DENSE), (model("b", 0, 64), DENSE)),
            r"at least 1 for each model",
        ),
        (((model("a", 50, 32), DENSE),), "a needs 64 MiB for weights.* and has 32"),
        (
            ((model("a", 50, 1000), DENSE), (model("b", 50), DENSE)),
            "b needs 64 MiB for weights.* and has 24",
        ),
        (((model("a", 50, 64, rank=3), DENSE),), "a asks for rank 3, and there are 1"),
        (
            ((model("a", 50, 64, isolate="sm"), DENSE), (model("b", 50, 64, isolate="sm"), DENSE)),
            r"all of rank 0's processors \(a 50, b 50\), and the other models and the serving loop",
        ),
        (((model("a", isolate="sm"), DENSE),), r"all of rank 0's processors \(a 100\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_figures(
    models: tuple[tuple[ModelConfig, Need], ...], said: str
) -> None:
    with pytest.raises(PlacementError, match=said):
        plan_of(*models, budgets=(GIB,))


def test_a_gang_beside_processors_that_one_rank_alone_gives_away_has_longer_turns() -> None:
    models = [
        (model("big", 30, 64, spread="all"), EXPERTS),
        (model("own", 50, 64, isolate="sm", rank=0), DENSE),
    ]
    plan_of(*models, (model("b", 40, 64, rank=1), DENSE))
    with pytest.raises(PlacementError, match=r"turns on rank 1 come to 110 .* \(big 60, b 50\)"):
        plan_of(*models, (model("b", 50, 64, rank=1), DENSE))
    # Where both give as much away, all is as it was asked for.
    both = (model("other", 50, 64, isolate="sm", rank=1), DENSE)
    plan_of(*models, both, (model("b", 20, 64, rank=1), DENSE))


def test_a_model_that_no_rank_has_room_for_is_named_with_what_is_short() -> None:
    with pytest.raises(PlacementError, match=r"no rank has room for c.*compute 60% .*40% is left"):
        plan_of(
            (model("a", 60, 64, rank=0), DENSE),
            (model("b", 60, 64, rank=1), DENSE),
            (model("c", 60, 64), DENSE),
        )


def test_more_memory_than_can_be_counted_is_refused_with_both_figures() -> None:
    said = "a asks for 8796093022208 MiB, and no rank has more than 1024 for its models"
    with pytest.raises(PlacementError, match=said):
        plan_of((model("a", 50, 1 << 43), DENSE))


def test_models_come_and_go_and_change() -> None:
    plan = plan_of((model("a", 50, 512), DENSE), budgets=(GIB,))
    more = plan.with_models([model("b", 30, 256)], [DENSE], [7])
    assert more.tenant(7).share == pytest.approx(0.3)
    assert more.without(7) == plan
    resized = more.resized(7, SliceConfig(compute_percent=50, memory_mb=512, mode="hard"))
    assert (resized.tenant(7).memory, resized.tenant(7).is_hard) == (512 * MIB, True)
    with pytest.raises(PlacementError, match="is asked for 101"):
        more.resized(7, SliceConfig(compute_percent=51))
    with pytest.raises(PlacementError, match="as long as it is served"):
        more.resized(7, SliceConfig(isolate="sm"))


def test_processors_of_a_model_that_has_gone_stay_its_own() -> None:
    """Whoever spans all ranks has less to take turns on there, and longer turns everywhere."""
    plan = plan_of((model("own", 50, 64, isolate="sm", rank=0), DENSE)).without(0)
    come = [model("all", 60, 64, mode="hard", spread="all"), model("one", 40, 64, rank=1)]
    with pytest.raises(PlacementError, match=r"before they were unloaded, turns on rank 1 come to"):
        plan.with_models(come, [DENSE, DENSE], [1, 2])
    # Nothing but the shares on its own rank is scarce where all are on one rank each.
    alone = plan.with_models([model("one", 90, 64, rank=0)], [DENSE], [1])
    assert alone.tenant(1).share == 0.9
