"""The engine of an encoder as its rank drives it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from encoder_runs import encode, load

from moe_serve.errors import ConfigError, OverloadedError, RequestError
from moe_serve.step.rank_engine import RankEngine
from moe_serve.types import Request, TokenEvent

Ask = Callable[..., Request]
Checkpoint = Callable[..., Path]


def run(engine: RankEngine) -> list[TokenEvent]:
    events = []
    while engine.has_work:
        events += engine.step()
    return events


def test_steps_keep_the_budget_and_count(
    encoder_checkpoint: Checkpoint, prompts: list[list[int]], ask: Ask
) -> None:
    engine, _ = load(encoder_checkpoint(), max_tokens_per_step=40)
    assert (engine.has_work, engine.step()) == (False, [])
    for index, prompt in enumerate(prompts):
        engine.add(ask(str(index), prompt))
    sizes = []
    while engine.has_work:
        lengths = [len(prompts[int(event.request_id)]) for event in engine.step()]
        sizes.append(len(lengths) * max(lengths))
    # The longest has more tokens than a step, and is computed alone.
    assert sorted(sizes)[-2:] == [34, 48]
    stats = engine.stats()
    assert (stats.num_waiting, stats.num_steps) == (0, len(sizes))
    assert stats.num_prompt_tokens == sum(map(len, prompts))
    assert set(stats.step_seconds) == {"inputs", "dense"}
    assert min(stats.step_seconds.values()) > 0


def test_an_aborted_input_is_not_encoded(encoder_checkpoint: Checkpoint, ask: Ask) -> None:
    engine, _ = load(encoder_checkpoint())
    for name in "abc":
        engine.add(ask(name, [4, 5, 6]))
    event = engine.abort("b")
    assert event is not None
    assert (event.finish_reason, event.token_id, event.values) == ("abort", None, b"")
    assert engine.abort("b") is None
    assert [event.request_id for event in run(engine)] == ["a", "c"]
    assert engine.abort("a") is None
    engine.add(ask("d", [4]))
    engine.abort_all()
    assert not engine.has_work
    assert engine.step() == []


def test_a_full_queue_refuses_and_recovers(encoder_checkpoint: Checkpoint, ask: Ask) -> None:
    engine, _ = load(encoder_checkpoint(), max_live=2)
    engine.add(ask("a", [4]))
    engine.add(ask("b", [4]))
    with pytest.raises(OverloadedError, match="2 requests wait on this rank, 2 may"):
        engine.add(ask("c", [4]))
    engine.add(replace(ask("d", [4]), was_admitted=True))
    assert [event.request_id for event in run(engine)] == ["a", "b", "d"]
    engine.add(ask("c", [4]))
    assert [event.request_id for event in run(engine)] == ["c"]


@pytest.mark.parametrize(
    ("token_ids", "words"),
    [
        ([], ("0 tokens",)),
        ([4] * 49, ("49 tokens", "takes 48")),
        ([4, 160], ("160", "0..159")),
        ([-1, 4], ("-1", "0..159")),
    ],
)
def test_what_cannot_be_encoded_is_refused(
    token_ids: Sequence[int], words: tuple[str, ...], encoder_checkpoint: Checkpoint, ask: Ask
) -> None:
    engine, _ = load(encoder_checkpoint())
    for refuse in (engine.check, engine.add):
        with pytest.raises(RequestError) as refusal:
            refuse(ask("a", token_ids))
        assert all(word in str(refusal.value) for word in words)
    assert not engine.has_work


def test_a_shorter_context_is_kept(encoder_checkpoint: Checkpoint, ask: Ask) -> None:
    engine, served = load(encoder_checkpoint(), max_context=10)
    assert served.context_length == 10
    with pytest.raises(RequestError, match="11 tokens, this model takes 10"):
        engine.add(ask("a", [4] * 11))
    with pytest.raises(ConfigError, match="49 tokens are more than the 48"):
        load(encoder_checkpoint(), max_context=49)


def test_a_step_is_cut_to_its_seconds(encoder_checkpoint: Checkpoint, ask: Ask) -> None:
    engine, _ = load(encoder_checkpoint(), max_tokens_per_step=1024)

    def add(count: int) -> None:
        for index in range(count):
            engine.add(ask(f"{engine.stats().num_steps}-{index}", [5] * 32))

    add(32)
    # Nothing is known yet: the oldest input goes alone.
    assert len(engine.step(max_seconds=60.0)) == 1
    run(engine)
    for count in (32, 2, 16) * 3:
        add(count)
        assert len(engine.step()) == count
    expected = {count: engine._cost.seconds(engine._shape.work(count, 32)) for count in (1, 9, 32)}
    assert expected[1] < expected[9] < expected[32]
    add(32)
    assert len(engine.step(max_seconds=expected[9] * 1.0001)) == 9
    assert len(engine.step(max_seconds=0.0)) == 1
    assert len(engine.step(max_seconds=60.0)) == 22


def test_numbers_out_of_range_are_an_error(encoder_checkpoint: Checkpoint, ask: Ask) -> None:
    engine, _ = load(encoder_checkpoint(), "float16")
    good = encode(engine, [[4, 5]])
    assert np.isfinite(good).all()
    with torch.no_grad():
        engine._encoder.module.embeddings.LayerNorm.bias.fill_(torch.inf)
    engine.add(ask("a", [4, 5]))
    (event,) = engine.step()
    assert (event.finish_reason, event.error_kind, event.values) == ("error", "engine", b"")
    assert "float32" in event.error
