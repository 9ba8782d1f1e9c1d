"""What goes wrong between two engines costs time alone, or is seen in the tokens."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_runs import engine
from kv_pair import DECODE, LIMITS, PREFILL, Pair, pair, requests
from moe_comm.kv.sending import Sending

from moe_serve.errors import BringUpError, OverloadedError
from moe_serve.step.rank_kv import RankKv
from moe_serve.types import Request


@pytest.mark.parametrize("family", ["deepseek_v3", "qwen3_moe"])
def test_a_page_that_is_dropped_changes_the_tokens(
    family: str, checkpoint: Callable[..., Path], alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RankKv.write

    def lose(
        kv: RankKv, layer: int, page_ids: Any, first_token: int, first_head: int, parts: Any
    ) -> None:
        if layer == 1:
            parts = tuple(part.copy() for part in parts)
            for part in parts:
                part[max(0, 8 - first_token) : max(0, 16 - first_token)] = 0
        write(kv, layer, page_ids, first_token, first_head, parts)

    monkeypatch.setattr(RankKv, "write", lose)
    asked = requests((57, 64, 65))
    with pair(checkpoint(family)) as both:
        tokens = both.run(asked)
    expected = alone(family, asked)
    assert all(one != right for one, right in zip(tokens, expected, strict=True))


def test_a_transfer_that_breaks_off_is_computed_where_it_is_decoded(
    latent: Pair, alone: Any
) -> None:
    asked = requests((200, 150))
    for request in asked:
        latent.add(request)
    latent.until(lambda: latent.prefill.stats().kv_bytes_sent > 0)
    latent.endpoints[PREFILL].close()
    latent.until_all_ended(prefill=False)
    assert latent.tokens() == alone("deepseek_v3", asked)
    stats = latent.decode.stats()
    assert (stats.num_handovers, stats.num_handover_failures) == (0, 2)
    # From now on it does not even wait.
    (later,) = requests((40,), seed=3)
    latent.events = {later.request_id: []}
    latent.decode.add(
        Request(
            request_id=later.request_id,
            prompt_ids=later.prompt_ids,
            sampling=later.sampling,
            prefill_rank=PREFILL,
        )
    )
    assert latent.decode.has_work and latent.decode.stats().num_handover_failures == 3


def test_a_sender_that_stands_still_is_given_up(
    latent: Pair, alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread lives and answers, but not one block more leaves."""
    asked = requests((200,))
    put, blocks = Sending._put_block, iter(range(1000))

    def stand_still(sending: Any, *block: Any) -> None:
        if next(blocks) < 4:
            put(sending, *block)

    monkeypatch.setattr(Sending, "_put_block", stand_still)
    assert latent.run(asked) == alone("deepseek_v3", asked)
    assert latent.decode.stats().num_handover_failures == 1
    latent.until_idle()
    assert latent.prefill.stats().num_pages_used == 0


def test_a_prefill_rank_that_never_begins_is_given_up(latent: Pair, alone: Any) -> None:
    latent.handover_of(DECODE)._offer_seconds = 0.3
    asked = requests((50,))
    assert latent.run(asked, prefill=False) == alone("deepseek_v3", asked)
    assert latent.decode.stats().num_handover_failures == 1
    # When it begins after all, nobody waits any more.
    latent.until_idle()
    latent.until(lambda: not latent.handover_of(PREFILL)._outgoing)
    latent.until(lambda: not latent.handover_of(DECODE)._incoming)


def test_a_prefill_rank_that_refuses_is_not_waited_for(
    latent: Pair, alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = latent.handover_of(PREFILL)._scheduler
    take, places = scheduler.add, iter(range(1))

    def add(request: Request) -> None:
        if next(places, None) is None:
            raise OverloadedError("one at a time")
        take(request)

    monkeypatch.setattr(scheduler, "add", add)
    asked = requests((50, 51, 52))
    assert latent.run(asked) == alone("deepseek_v3", asked)
    stats = latent.decode.stats()
    assert (stats.num_handovers, stats.num_handover_failures) == (1, 2)


def test_a_refusal_that_comes_before_the_request_is_remembered(latent: Pair, alone: Any) -> None:
    (request,) = requests((50,))
    (asked,) = [replace(request, prompt_ids=request.prompt_ids[:-1], decode_rank=DECODE)]
    latent.prefill.give_back(asked, "too busy")
    incoming = latent.handover_of(DECODE)._incoming
    latent.until(lambda: bool(incoming) and incoming[request.request_id].has_failed)
    latent.events = {request.request_id: []}
    latent.decode.add(replace(request, prefill_rank=PREFILL))
    assert latent.decode.has_work and latent.decode.stats().num_handover_failures == 1
    latent.until_all_ended()
    assert latent.tokens() == alone("deepseek_v3", [request]) and not incoming


@pytest.mark.parametrize("early", [True, False])
def test_a_request_that_ends_at_its_decoding_rank_ends_at_the_other(
    early: bool, latent: Pair
) -> None:
    (request,) = requests((200,))
    latent.add(request)
    if not early:
        latent.until(lambda: latent.prefill.stats().kv_bytes_sent > 0)
    event = latent.decode.abort(request.request_id)
    assert event is not None and event.finish_reason == "abort"
    assert early or latent.prefill.stats().num_running == 1
    # The front end tells the other rank too, which may not have begun.
    if early:
        assert latent.prefill.abort(request.request_id) is None
    latent.until_idle()
    assert latent.decode.stats().num_pages_used == latent.prefill.stats().num_pages_used == 0


def test_lost_ends_find_each_other_again(latent: Pair, alone: Any) -> None:
    asked, before = requests((50,)), links_of(latent)
    before[DECODE].cut()
    latent.until(lambda: not set(before) & set(links_of(latent)) and len(links_of(latent)) == 2)
    latent.turn()
    assert latent.run(asked) == alone("deepseek_v3", asked)
    assert latent.decode.stats().num_handovers == 1


def test_a_request_between_two_connections_is_computed_where_it_is_decoded(
    latent: Pair, alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoding end is connected again and waits; the other has offered it to nobody."""
    asked, (_, first) = requests((50,)), links_of(latent)
    late: list[Any] = []
    endpoint = latent.endpoints[PREFILL]
    join = endpoint._hub._join
    monkeypatch.setattr(endpoint._hub, "_join", late.append)
    first.cut()
    latent.until(lambda: bool(late) and len(links_of(latent)) == 1)
    latent.turn()
    for request in asked:
        latent.add(request)
    latent.until(lambda: not latent.prefill.has_work)
    endpoint._do(lambda: join(late[0]))
    latent.until_all_ended()
    assert latent.tokens() == alone("deepseek_v3", asked)
    assert latent.decode.stats().num_handover_failures == 1


def links_of(both: Pair) -> list[Any]:
    """Of each end the connection to the other, if there is one."""
    return [link for end in both.endpoints for link in end._hub._links.values()]


def test_ends_of_different_models_do_not_join(checkpoint: Callable[..., Path]) -> None:
    with (
        engine(checkpoint("deepseek_v3"), deterministic=True) as one,
        engine(checkpoint("qwen3_moe"), deterministic=True) as other,
        pytest.raises(BringUpError, match="serve different models"),
    ):
        Pair(one, other, LIMITS)
