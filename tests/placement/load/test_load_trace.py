"""A record of expert load answers in rows and skew, and refuses what cannot be."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from moe_placement.load.trace import ExpertLoad, LoadError


def test_rows_are_shares_of_the_tokens_that_choose(small_load: ExpertLoad) -> None:
    rows_LE = small_load.rows_LE(num_tokens=32, top_k=2)
    np.testing.assert_allclose(rows_LE, [[32, 16, 8, 8], [8, 8, 40, 8]])


def test_skew_of_experts_and_of_ranks(small_load: ExpertLoad) -> None:
    np.testing.assert_allclose(small_load.expert_imbalance(), [2.0, 2.5])
    np.testing.assert_allclose(small_load.rank_imbalance(2), [1.5, 1.5])
    np.testing.assert_allclose(small_load.rank_imbalance(1), [1.0, 1.0])


def test_a_window_is_a_record_of_its_own(small_load: ExpertLoad) -> None:
    np.testing.assert_allclose(small_load.window(0, 1).expert_imbalance(), [2.0, 1.0])
    with pytest.raises(LoadError, match=r"layer 1 has no tokens in any window"):
        small_load.window(1, 2)
    with pytest.raises(LoadError, match=r"windows 1\.\.3 are not within 0\.\.2"):
        small_load.window(1, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts_TLE": np.zeros((2, 4), np.int64)}, r"counts_TLE has shape \(2, 4\)"),
        ({"counts_TLE": np.full((1, 2, 4), -1)}, "counts_TLE holds -1"),
        ({"layers": (1,)}, "has 2 layers but 1 layer numbers"),
        ({"layers": (3, 1)}, "must grow"),
        ({"layers": (3, 3)}, "must grow"),
        ({"steps_per_window": 0}, "steps_per_window is 0"),
        ({"coactivation_LEE": np.ones((2, 4, 3), np.int64)}, r"coactivation_LEE has shape"),
        ({"source_LNE": np.ones((1, 8, 4), np.int64)}, r"asks for \(2, 'any', 4\)"),
        ({"source_LNE": np.full((2, 8, 4), -2)}, "source_LNE holds -2"),
    ],
)
def test_what_cannot_be_is_refused(
    small_load: ExpertLoad, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(LoadError, match=message):
        replace(small_load, **change)


def test_questions_that_make_no_sense(small_load: ExpertLoad) -> None:
    with pytest.raises(LoadError, match="top_k is 5; it must be 1 to 4"):
        small_load.rows_LE(8, 5)
    with pytest.raises(LoadError, match="4 experts do not split evenly over 3"):
        small_load.rank_imbalance(3)


def test_pairs_are_counted_both_ways(small_load: ExpertLoad) -> None:
    pairs_LEE = np.zeros((2, 4, 4), np.int64)
    pairs_LEE[1, 0, 2] = 5
    with pytest.raises(LoadError, match="not symmetric in layer 3; count each pair both ways"):
        replace(small_load, coactivation_LEE=pairs_LEE)
    pairs_LEE[1, 2, 0] = 5
    assert replace(small_load, coactivation_LEE=pairs_LEE).coactivation_LEE is pairs_LEE
