"""EPLB, written from its description, does what the published one does."""

from time import process_time

import numpy as np
import pytest
from moe_placement.bench.eplb import place_with_eplb
from moe_placement.bench.instances import TWO_LAYERS_LE, scalar_devices, skewed_rows
from moe_placement.load.trace import LoadError
from moe_placement.solver.predicted import predicted_seconds


def test_the_example_of_its_readme() -> None:
    """The slots that the README of deepseek-ai/EPLB prints, and what they give."""
    placement = place_with_eplb(TWO_LAYERS_LE, num_slots=16, num_ranks=8, num_groups=4, num_nodes=2)
    assert placement.expert_LS.tolist() == [
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]
    seconds_L = predicted_seconds(placement, scalar_devices(TWO_LAYERS_LE, np.full(8, 2)))
    np.testing.assert_allclose(seconds_L * 8 / TWO_LAYERS_LE.sum(axis=1), [1.208, 1.242], atol=5e-4)


@pytest.mark.parametrize(("num_groups", "num_nodes"), [(1, 1), (8, 4), (6, 4)])
def test_equal_counts_and_even_shares(num_groups: int, num_nodes: int) -> None:
    rows_LE = skewed_rows(3, 48, 1000.0, seed=1)
    placement = place_with_eplb(
        rows_LE, num_slots=64, num_ranks=16, num_groups=num_groups, num_nodes=num_nodes
    )
    for expert_S, rank_S, weight_S in zip(
        placement.expert_LS, placement.rank_LS, placement.weight_LS, strict=True
    ):
        assert np.bincount(rank_S).tolist() == [4] * 16
        count_E = np.bincount(expert_S, minlength=48)
        assert count_E.min() == 1
        np.testing.assert_allclose(weight_S, 1.0 / count_E[expert_S])
        hottest = expert_S[np.argmax(count_E[expert_S])]
        assert count_E[hottest] > 1


def test_groups_stay_on_their_node() -> None:
    rows_LE = skewed_rows(5, 48, 1000.0, seed=2)
    placement = place_with_eplb(rows_LE, num_slots=64, num_ranks=16, num_groups=8, num_nodes=4)
    for expert_S, rank_S in zip(placement.expert_LS, placement.rank_LS, strict=True):
        nodes = {(int(e) // 6, int(r) // 4) for e, r in zip(expert_S, rank_S, strict=True)}
        assert len(nodes) == 8


def test_a_layer_does_not_depend_on_the_others() -> None:
    rows_LE = skewed_rows(4, 32, 1000.0, seed=3)
    together = place_with_eplb(rows_LE, num_slots=40, num_ranks=8)
    alone = place_with_eplb(rows_LE[2:3], num_slots=40, num_ranks=8)
    np.testing.assert_array_equal(together.expert_LS[2:3], alone.expert_LS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_slots": 17, "num_ranks": 8}, "17 slots do not divide evenly over 8 ranks"),
        ({"num_slots": 8, "num_ranks": 8}, "8 slots cannot hold 12 experts"),
        ({"num_slots": 16, "num_ranks": 8, "num_nodes": 3}, "8 ranks .* 3 nodes"),
        (
            {"num_slots": 16, "num_ranks": 8, "num_groups": 8, "num_nodes": 2},
            "12 experts do not divide evenly over 8 groups",
        ),
    ],
)
def test_what_it_cannot_do(options: dict[str, int], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        place_with_eplb(TWO_LAYERS_LE, **options)


def test_a_whole_model_takes_well_under_a_second() -> None:
    rows_LE = skewed_rows(58, 256, 1e5, seed=0)
    start = process_time()
    place_with_eplb(rows_LE, num_slots=288, num_ranks=32, num_groups=8, num_nodes=4)
    assert process_time() - start < 0.5
