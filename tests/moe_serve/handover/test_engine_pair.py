"""A prompt is computed by one engine and continued by another: the same tokens as of one alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kv_pair import LENGTHS, PREFILL, SAMPLINGS, Pair, pair, requests
from moe_comm.kv.limits import KvLimits
from quick import quick_among

from moe_serve.config.tree import LinkConfig
from moe_serve.types import Request

FAMILIES = ["deepseek_v3", "qwen3_moe", "glm4_moe", "deepseek_v2"]


@pytest.mark.parametrize("family", quick_among(FAMILIES, FAMILIES[:2]))
@pytest.mark.parametrize("tokens_per_step", [24, 2048])
def test_the_same_tokens_as_alone(
    family: str, tokens_per_step: int, checkpoint: Callable[..., Path], alone: Any
) -> None:
    asked = requests()
    with pair(checkpoint(family), tokens_per_step=tokens_per_step) as both:
        tokens = both.run(asked)
        both.until_idle()
        sent, got = both.prefill.stats(), both.decode.stats()
    assert tokens == alone(family, asked)
    assert len({token for each in tokens for token in each}) > 20
    assert got.num_handovers == len(asked) and got.num_handover_failures == 0
    assert sent.num_pages_used == got.num_pages_used == 0
    assert sent.num_generated_tokens == 0
    # All but the last token, once each.
    assert sent.kv_bytes_sent == sum(length - 1 for length in LENGTHS) * bytes_of(both)


def test_a_link_says_in_which_type_keys_and_values_cross(checkpoint: Callable[..., Path]) -> None:
    link = LinkConfig(between=("prefill", "decode"), bandwidth=1e9, wire="bfloat16")
    (request,) = requests((40,))
    with pair(checkpoint("qwen3_moe"), links=(link,)) as both:
        both.run([request])
        sent, got = both.prefill.stats(), both.decode.stats()
        assert got.num_handovers == 1 and sent.kv_bytes_sent == 39 * bytes_of(both) / 2


def bytes_of(both: Pair) -> int:
    """Of one token in all layers."""
    kv = both.ranks[PREFILL].kv
    assert kv is not None
    return sum(page.shape[-1] * page.shape[-2] * 4 for pages in kv.pages for page in pages)


def test_layers_leave_while_the_prompt_is_computed(latent: Pair) -> None:
    """Of three layers, sent after each one, the first ones leave before the last is computed."""
    (request,) = requests((200,))
    sent: list[tuple[int, int]] = []
    real = latent.endpoints[PREFILL].send
    done = latent.prefill.stats

    def send(request_id: str, layer: int, first_token: int, parts: Any) -> bool:
        sent.append((done().num_steps, layer))
        return real(request_id, layer, first_token, parts)

    latent.endpoints[PREFILL].send = send  # type: ignore[method-assign]
    latent.run([request])
    steps = {step for step, _ in sent}
    assert len(steps) > 5 and max(steps) < 200 / 24 + 1


def test_what_is_cached_where_it_is_decoded_is_not_sent_again(latent: Pair, alone: Any) -> None:
    first, other = requests((100, 100))
    latent.run([first])
    latent.until_idle()
    before = latent.prefill.stats().kv_bytes_sent
    prompt = first.prompt_ids[:80] + other.prompt_ids[:20]
    (again,) = requests((1,))
    again = Request(request_id=again.request_id, prompt_ids=prompt, sampling=SAMPLINGS[0])
    assert latent.run([again]) == alone("deepseek_v3", [again])
    assert latent.prefill.stats().kv_bytes_sent - before == 19 * bytes_of(latent)
    assert latent.prefill.stats().num_cached_tokens == 80
    assert latent.events[again.request_id][0].num_cached_tokens == 80


def test_equal_prompts_at_once(latent: Pair, alone: Any) -> None:
    (one,) = requests((61,))
    same = [
        Request(
            request_id=f"{one.request_id}-{n}", prompt_ids=one.prompt_ids, sampling=SAMPLINGS[n]
        )
        for n in range(2)
    ]
    assert latent.run(same) == alone("deepseek_v3", same)
    # The second one needs but what does not fill a page.
    assert latent.prefill.stats().kv_bytes_sent == (60 + 60 % 8) * bytes_of(latent)


def test_more_than_may_be_in_flight_leaves_later(
    checkpoint: Callable[..., Path], alone: Any
) -> None:
    asked = requests()
    limits = KvLimits(silence_seconds=1.0, idle_seconds=2.0, bytes_in_flight=4000)
    with pair(checkpoint("deepseek_v3"), limits) as both:
        assert both.run(asked) == alone("deepseek_v3", asked)
        assert both.decode.stats().num_handovers == len(asked)


def test_a_few_pages_for_many_prompts(checkpoint: Callable[..., Path], alone: Any) -> None:
    asked = requests((60, 61, 62, 63, 64, 65, 66))
    with pair(checkpoint("deepseek_v3"), num_pages=21, tokens_per_step=40) as both:
        assert both.run(asked) == alone("deepseek_v3", asked)
        both.until_idle()
        stats = both.decode.stats()
        assert stats.num_handovers + stats.num_handover_failures + stats.num_preemptions >= 7
        assert stats.num_handovers > 0
