"""The router, the journal and the imbalance window."""

from collections.abc import Sequence

import pytest

from moe_serve.control.balancing.imbalance import ImbalanceWindow
from moe_serve.control.requests.journal import Journal
from moe_serve.control.requests.router import Route, Router
from moe_serve.errors import OverloadedError, RequestError
from moe_serve.messages import RankStats
from moe_serve.types import Request, SamplingParams, TokenEvent


def pick(router: Router, prompt_ids: Sequence[int], num_sequences: int) -> int:
    return router.pick(prompt_ids, num_sequences).rank


def test_requests_spread_by_load_and_weight() -> None:
    router = Router([1.0, 2.0, 0.0], block_size=4, max_live=100)
    ranks = [pick(router, [number], 1) for number in range(30)]
    assert ranks.count(0) == 10 and ranks.count(1) == 20 and ranks.count(2) == 0


def test_a_long_shared_prefix_outweighs_a_little_more_load() -> None:
    router = Router([1.0, 1.0], block_size=4, max_live=100)
    prompt = list(range(1000))
    first = pick(router, prompt, 1)
    assert pick(router, [*prompt, 7], 1) == first
    assert pick(router, [7, *prompt], 1) != first


def test_a_full_rank_is_left_for_an_empty_one_even_with_the_prefix() -> None:
    router = Router([1.0, 1.0], block_size=4, max_live=100)
    prompt = list(range(100))
    first = pick(router, prompt, 8)
    assert pick(router, prompt, 1) != first


def test_finished_sequences_no_longer_count() -> None:
    router = Router([1.0, 1.0], block_size=4, max_live=100)
    first = pick(router, [1], 3)
    for _ in range(3):
        router.finish(first)
    assert pick(router, [2], 1) == first


def test_a_rank_without_room_is_passed_over_and_then_all_are_full() -> None:
    router = Router([1.0, 1.0, 0.0], block_size=4, max_live=3)
    prompt = list(range(4000))
    first = pick(router, prompt, 2)
    assert pick(router, prompt, 2) == 1 - first
    assert {pick(router, prompt, 1) for _ in range(2)} == {0, 1}
    with pytest.raises(
        OverloadedError, match=r"3 requests or more .* 3 may, and 1 came; .*max_wai"
    ):
        pick(router, [1], 1)
    router.finish(first)
    with pytest.raises(OverloadedError, match=r"2 requests or more .* 3 may, and 2 came"):
        pick(router, [1], 2)
    assert pick(router, [1], 1) == first


def apart(num_prefill: int = 2) -> Router:
    """Rank 0 decodes, the next ones prefill."""
    prefill_ranks = range(1, 1 + num_prefill)
    weights = [1.0] + [0.0] * num_prefill
    return Router(weights, 4, 100, prefill_ranks=prefill_ranks, max_local_prefill=8)


def test_a_prompt_goes_to_a_prefill_rank_if_much_of_it_is_not_cached() -> None:
    router = apart(1)
    assert router.pick([1] * 8, 1) == Route(0)
    assert router.pick([2] * 9, 1) == Route(0, 1)
    # Of these, 8 are cached where the last one was decoded, and 8 or 9 are not.
    assert router.pick([2] * 8 + [3] * 8, 1) == Route(0)
    assert router.pick([2] * 8 + [4] * 9, 1) == Route(0, 1)
    assert Router([1.0], 4, 100).pick([2] * 1000, 1) == Route(0)


def test_prompts_spread_over_prefill_ranks_by_tokens_left_to_compute() -> None:
    router = apart()
    assert router.pick([1] * 100, 1).prefill_rank == 1
    assert [router.pick([token] * 40, 1).prefill_rank for token in (2, 3)] == [2, 2]
    assert router.pick([4] * 20, 1).prefill_rank == 2
    assert router.pick([5] * 20, 1).prefill_rank == 1
    for _ in range(2):
        router.finish_prefill(2, 40)
    assert router.pick([6] * 100, 1).prefill_rank == 2


def test_a_prefill_rank_that_has_the_prefix_is_worth_a_little_waiting() -> None:
    router, prompt = apart(), list(range(100))
    first = router.pick(prompt, 1)
    router.finish_prefill(1, 100)
    assert router.pick([7] * 40, 1).prefill_rank == first.prefill_rank == 1
    assert router.pick([*prompt, *[8] * 20], 1).prefill_rank == 1
    assert router.pick([*prompt, *[9] * 20], 1).prefill_rank == 2


def test_more_choices_than_a_rank_may_ever_hold_are_no_overload() -> None:
    router = Router([1.0], block_size=4, max_live=3)
    with pytest.raises(RequestError, match="4 choices are more than the 3 requests") as refused:
        pick(router, [1], 4)
    assert not isinstance(refused.value, OverloadedError) and refused.value.parameter == "n"
    assert pick(router, [1], 3) == 0


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


def test_lost_ranks_are_not_in_the_mean_load() -> None:
    window = ImbalanceWindow(3)
    stats = [RankStats(plan_rank=rank, num_expert_rows=rank) for rank in range(3)]
    window.restart(stats, (1,))
    rows = (300, 1, 102)
    window.add([RankStats(plan_rank=rank, num_expert_rows=rows[rank]) for rank in range(3)])
    assert list(window.over_mean) == [1.5, 0.0, 0.5]


def test_where_no_prefix_is_kept_a_prompt_is_new_each_time() -> None:
    for block_size, second in ((4, None), (0, 1)):
        router = Router([1.0, 0.0], block_size, 100, prefill_ranks=(1,), max_local_prefill=8)
        assert router.pick([3] * 40, 1) == Route(0, 1)
        assert router.pick([3] * 40, 1) == Route(0, second)
