"""The router, the journal and the imbalance window."""

import pytest

from moe_serve.control.imbalance import ImbalanceWindow
from moe_serve.control.journal import Journal
from moe_serve.control.router import Router
from moe_serve.errors import OverloadedError, RequestError
from moe_serve.types import RankStats, Request, SamplingParams, TokenEvent


def test_requests_spread_by_load_and_weight() -> None:
    router = Router([1.0, 2.0, 0.0], block_size=4, max_live=100)
    ranks = [router.pick([number], 1) for number in range(30)]
    assert ranks.count(0) == 10 and ranks.count(1) == 20 and ranks.count(2) == 0


def test_a_long_shared_prefix_outweighs_a_little_more_load() -> None:
    router = Router([1.0, 1.0], block_size=4, max_live=100)
    prompt = list(range(1000))
    first = router.pick(prompt, 1)
    assert router.pick([*prompt, 7], 1) == first
    assert router.pick([7, *prompt], 1) != first


def test_a_full_rank_is_left_for_an_empty_one_even_with_the_prefix() -> None:
    router = Router([1.0, 1.0], block_size=4, max_live=100)
    prompt = list(range(100))
    first = router.pick(prompt, 8)
    assert router.pick(prompt, 1) != first


def test_finished_sequences_no_longer_count() -> None:
    router = Router([1.0, 1.0], block_size=4, max_live=100)
    first = router.pick([1], 3)
    for _ in range(3):
        router.finish(first)
    assert router.pick([2], 1) == first


def test_a_rank_without_room_is_passed_over_and_then_all_are_full() -> None:
    router = Router([1.0, 1.0, 0.0], block_size=4, max_live=3)
    prompt = list(range(4000))
    first = router.pick(prompt, 2)
    assert router.pick(prompt, 2) == 1 - first
    assert {router.pick(prompt, 1) for _ in range(2)} == {0, 1}
    with pytest.raises(
        OverloadedError, match=r"3 requests or more .* 3 may, and 1 came; .*max_wai"
    ):
        router.pick([1], 1)
    router.finish(first)
    with pytest.raises(OverloadedError, match=r"2 requests or more .* 3 may, and 2 came"):
        router.pick([1], 2)
    assert router.pick([1], 1) == first


def test_more_choices_than_a_rank_may_ever_hold_are_no_overload() -> None:
    router = Router([1.0], block_size=4, max_live=3)
    with pytest.raises(RequestError, match="4 choices are more than the 3 requests") as refused:
        router.pick([1], 4)
    assert not isinstance(refused.value, OverloadedError) and refused.value.parameter == "n"
    assert router.pick([1], 3) == 0


def test_the_journal_holds_what_a_resubmission_needs() -> None:
    journal = Journal()
    request = Request(request_id="a", prompt_ids=(1, 2), sampling=SamplingParams())
    journal.open(request, rank=1)
    journal.record(TokenEvent("a", 0, 5))
    journal.record(TokenEvent("a", 1, 6))
    assert journal.record(TokenEvent("b", 0, 5)) is None
    entry = journal.get("a")
    assert entry is not None
    assert (entry.request, entry.rank, entry.token_ids) == (request, 1, [5, 6])
    assert journal.close("a") is entry and len(journal) == 0 and journal.close("a") is None


def test_imbalance_is_that_of_the_last_reports() -> None:
    window = ImbalanceWindow(2)
    assert window.value == 1.0
    window.add([RankStats(plan_rank=0, num_expert_rows=300), RankStats(plan_rank=1)])
    assert window.value == 2.0
    for total in range(1, 20):
        window.add([RankStats(plan_rank=rank, num_expert_rows=300 + total) for rank in range(2)])
    assert window.value < 1.01
