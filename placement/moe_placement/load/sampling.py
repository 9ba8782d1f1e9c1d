"""How many rows each expert gets when every token chooses k different experts."""

import numpy as np

from moe_placement.load.trace import Floats, Ints


def inclusion(share_XE: Floats, top_k: int) -> Floats:
    """The chance of each expert to be among the k of one token, from its share of all rows.

    It is k times the share, but at most 1: what is above goes to the others, in proportion.

    Args:
        share_XE: any leading axes; positive, each row sums to 1.

    Returns:
        same shape; each row sums to k.
    """
    chance_XE = share_XE * top_k
    while np.any(chance_XE > 1.0 + 1e-12):
        full_XE = chance_XE >= 1.0
        rest_XE = np.where(full_XE, 0.0, share_XE)
        num_free_X = top_k - full_XE.sum(axis=-1, keepdims=True)
        scale_X = num_free_X / np.maximum(rest_XE.sum(axis=-1, keepdims=True), 1e-300)
        chance_XE = np.where(full_XE, 1.0, rest_XE * scale_X)
    return np.minimum(chance_XE, 1.0)


def sample_rows(rng: np.random.Generator, chance_XE: Floats, num_tokens: int) -> Ints:
    """Rows of each expert when `num_tokens` tokens each choose k experts, none twice.

    A plain multinomial of k draws a token would let a token choose a hot expert twice. Here each
    expert's count is binomial over the tokens, which is its exact marginal, and the counts are
    then tied to their known sum by the regression of Hájek, "Asymptotic theory of rejective
    sampling with varying probabilities", Ann. Math. Stat. 35 (1964): each gives up its share of
    the excess in proportion to its variance. Exact in the mean, and in the covariances as tokens
    grow; tokens by themselves are never drawn, so a step costs one draw per expert.

    Args:
        chance_XE: as `inclusion` has it; each row sums to k.

    Returns:
        same shape; each row sums to `num_tokens` times k, none above `num_tokens`.
    """
    total_X = np.rint(chance_XE.sum(axis=-1, keepdims=True) * num_tokens)
    drawn_XE = rng.binomial(num_tokens, chance_XE).astype(np.float64)
    variance_XE = chance_XE * (1.0 - chance_XE)
    spread_X = np.maximum(variance_XE.sum(axis=-1, keepdims=True), 1e-300)
    excess_X = drawn_XE.sum(axis=-1, keepdims=True) - total_X
    tied_XE = np.clip(drawn_XE - variance_XE / spread_X * excess_X, 0.0, num_tokens)
    return _round_to(tied_XE, total_X, num_tokens)


def split_rows(rng: np.random.Generator, rows_X: Ints, weight_XR: Floats) -> Ints:
    """Deal each expert's rows out to its replicas, each row by itself and by their weights.

    Args:
        weight_XR: shares of the replicas of each expert, 0 where it has fewer.

    Returns:
        shape of the weights; each line sums to the expert's rows.
    """
    left_X = rows_X.copy()
    later_XR = np.cumsum(weight_XR[:, ::-1], axis=1)[:, ::-1]
    split_XR = np.zeros(weight_XR.shape, np.int64)
    for replica in range(weight_XR.shape[1]):
        ratio_X = weight_XR[:, replica] / np.maximum(later_XR[:, replica], 1e-300)
        split_XR[:, replica] = rng.binomial(left_X, np.minimum(ratio_X, 1.0))
        left_X -= split_XR[:, replica]
    return split_XR


def sample_choices(rng: np.random.Generator, chance_E: Floats, num_tokens: int) -> Ints:
    """The experts that tokens choose, one by one, where pairs matter and not counts alone.

    Systematic sampling in a fresh random order for every run of tokens (Madow 1949): exact chances,
    always k different experts.

    Returns:
        (tokens, k) experts.
    """
    top_k = round(float(chance_E.sum()))
    order_E = rng.permutation(len(chance_E))
    edges_E = np.cumsum(chance_E[order_E])
    points_TK = rng.random((num_tokens, 1)) + np.arange(top_k)
    found_TK = np.searchsorted(edges_E, points_TK, side="right")
    chosen: Ints = order_E[np.minimum(found_TK, len(chance_E) - 1)]
    return chosen


def _round_to(counts_XE: Floats, total_X: Floats, most: int) -> Ints:
    """Whole numbers near the counts that sum to the totals."""
    short_X = total_X - counts_XE.sum(axis=-1, keepdims=True)
    room_XE = np.where(short_X > 0, most - counts_XE, counts_XE)
    evened_XE = counts_XE + short_X * room_XE / room_XE.sum(axis=-1, keepdims=True).clip(1e-300)
    edges_XE = np.rint(np.cumsum(evened_XE, axis=-1))
    whole_XE: Ints = np.diff(edges_XE, axis=-1, prepend=0.0).astype(np.int64)
    return whole_XE
