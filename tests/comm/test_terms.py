"""Sums of unequal numbers of rows, against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from moe_comm.terms import Bools, Terms, order_terms

WIDTH = 5


@st.composite
def masks(draw: st.DrawFn) -> Bools:
    most = draw(st.integers(1, 5))
    share = draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    num_tokens = draw(st.sampled_from([0, 1, 2, 9, 64, 65, 100]))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    return random.random((num_tokens, most)) < share


@settings(deadline=None, max_examples=80)
@given(masks(), st.booleans())
def test_sums_are_those_of_plain_loops_bit_for_bit(is_term_TK: Bools, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    rows_RD = torch.randn(is_term_TK.size + 1, WIDTH, generator=generator)
    row_TK = torch.randperm(is_term_TK.size, generator=generator).view(is_term_TK.shape)
    weight_TK = torch.rand(is_term_TK.shape, generator=generator)
    order = order_terms(is_term_TK)
    weights_S1 = weight_TK.view(-1)[order.term_S][:, None] if weighted else None
    terms = Terms(row_TK.view(-1)[order.term_S], weights_S1, order.lengths, None)
    sums_TD = terms.add(rows_RD)
    assert len(order.term_S) == is_term_TK.sum() and len(sums_TD) == is_term_TK.any(1).sum()
    for token in np.flatnonzero(is_term_TK.any(1)):
        places = np.flatnonzero(is_term_TK[token])
        each = [
            rows_RD[row_TK[token, k]] * (weight_TK[token, k] if weighted else 1) for k in places
        ]
        total = each[0]
        for term in each[1:]:
            total = total + term
        assert torch.equal(sums_TD[order.place_T[token]], total)


@settings(deadline=None, max_examples=60)
@given(masks())
def test_tokens_stand_by_falling_numbers_of_terms(is_term_TK: Bools) -> None:
    order = order_terms(is_term_TK)
    counts = is_term_TK.sum(1)[np.argsort(order.place_T)]
    assert sorted(counts, reverse=True) == counts.tolist()
    longer = [int((counts > k).sum()) for k in range(counts.max(initial=0))]
    assert [length for length in order.lengths if length] == longer and len(order.lengths) > 0
    assert order.is_sorted == (order.lengths[-1] == len(is_term_TK))
    assert not order.is_sorted or order.place_T.tolist() == list(range(len(is_term_TK)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_come_back_in_the_order_of_the_tokens(dtype: torch.dtype) -> None:
    order = order_terms(np.array([[True, False], [True, True], [False, True]]))
    rows_RD = torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=dtype)
    row_TK = torch.tensor([[0, -1], [1, 2], [-1, 3]])
    place_T = torch.from_numpy(order.place_T)
    terms = Terms(row_TK.view(-1)[order.term_S], None, order.lengths, place_T)
    y_TD = terms.add_in_order(rows_RD, dtype)
    assert y_TD.dtype == dtype and y_TD.view(-1).tolist() == [1, 5, 4]
