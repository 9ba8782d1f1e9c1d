"""Rows drawn for a step: k different experts for every token, in the right shares."""

import numpy as np
import pytest
from moe_placement.load.sampling import inclusion, sample_choices, sample_rows, split_rows

SHARE_E = np.array([0.5, 0.2, 0.1, 0.08, 0.06, 0.03, 0.02, 0.01])


def test_a_chance_is_k_times_the_share_and_at_most_one() -> None:
    np.testing.assert_allclose(inclusion(SHARE_E, 1), SHARE_E)
    chance_E = inclusion(SHARE_E, 3)
    assert chance_E[0] == 1.0
    assert chance_E.sum() == pytest.approx(3)
    np.testing.assert_allclose(chance_E[1:] / chance_E[7], SHARE_E[1:] / SHARE_E[7])
    assert inclusion(SHARE_E, 7).max() == 1.0


@pytest.mark.parametrize("num_tokens", [1, 7, 500])
def test_rows_sum_and_no_token_chooses_an_expert_twice(num_tokens: int) -> None:
    chance_XE = np.tile(inclusion(SHARE_E, 3), (400, 1))
    rows_XE = sample_rows(np.random.default_rng(0), chance_XE, num_tokens)
    assert (rows_XE.sum(axis=1) == 3 * num_tokens).all()
    assert rows_XE.min() >= 0
    assert rows_XE.max() <= num_tokens


def test_rows_have_the_mean_and_spread_of_real_choices() -> None:
    """Against tokens drawn one by one by rejection: the exact design of fixed size."""
    rng, chance_E, num_tokens = np.random.default_rng(1), inclusion(SHARE_E, 2), 400
    rows_XE = sample_rows(rng, np.tile(chance_E, (4000, 1)), num_tokens)
    np.testing.assert_allclose(rows_XE.mean(axis=0), chance_E * num_tokens, rtol=0.02)
    # Rejective sampling of pairs, with odds tuned so that its chances are these.
    odds_E = chance_E / (1 - chance_E).clip(1e-9)
    for _ in range(200):
        pair_EE = np.triu(np.outer(odds_E, odds_E), 1)
        exact_E = (pair_EE + pair_EE.T).sum(axis=1) / pair_EE.sum()
        odds_E = odds_E * chance_E / exact_E
    np.testing.assert_allclose(exact_E, chance_E, rtol=1e-2)
    spread_E = np.sqrt(num_tokens * exact_E * (1 - exact_E))
    np.testing.assert_allclose(rows_XE.std(axis=0), spread_E, rtol=0.2, atol=0.6)


def test_choices_one_by_one_have_the_chances_too() -> None:
    chance_E = inclusion(SHARE_E, 3)
    chosen_TK = sample_choices(np.random.default_rng(2), chance_E, 20000)
    assert all(len(set(line)) == 3 for line in chosen_TK[:200].tolist())
    found_E = np.bincount(chosen_TK.ravel(), minlength=8) / 20000
    np.testing.assert_allclose(found_E, chance_E, atol=0.01)


def test_replicas_get_their_weights_and_all_rows() -> None:
    rows_X = np.array([10_000, 0, 7])
    weight_XR = np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    split_XR = split_rows(np.random.default_rng(3), rows_X, weight_XR)
    np.testing.assert_array_equal(split_XR.sum(axis=1), rows_X)
    np.testing.assert_allclose(split_XR[0] / 10_000, weight_XR[0], atol=0.02)
    np.testing.assert_array_equal(split_XR[1:], [[0, 0, 0], [7, 0, 0]])
