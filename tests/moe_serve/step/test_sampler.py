"""The sampler against a naive per-row version, and its independence of the batch."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_serve.step.candidates import pick, top_tokens
from moe_serve.step.random import uniform
from moe_serve.step.sampler import Sampler
from moe_serve.types import Request, SamplingParams

VOCABULARY = 64
CPU = torch.device("cpu")


def logits_of(rows: int, seed: int = 0, vocabulary: int = VOCABULARY) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


def naive_kept(logits: torch.Tensor, params: SamplingParams) -> dict[int, float]:
    """Probabilities left for one row, written the slow way."""
    probabilities = torch.softmax(logits.double() / params.temperature, -1).tolist()
    order = sorted(range(len(probabilities)), key=lambda token: (-probabilities[token], token))
    if params.top_k:
        order = order[: params.top_k]
    total = sum(probabilities[token] for token in order) if params.top_k else 1.0
    kept, mass = [], 0.0
    for token in order:
        if kept and mass >= params.top_p * total:
            break
        kept.append(token)
        mass += probabilities[token]
    floor = params.min_p * probabilities[order[0]]
    kept = [token for token in kept if probabilities[token] >= floor]
    total = sum(probabilities[token] for token in kept)
    return {token: probabilities[token] / total for token in kept}


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.7, top_k=5),
        SamplingParams(top_p=0.8),
        SamplingParams(top_p=0.9, top_k=20, temperature=1.5),
        SamplingParams(min_p=0.1),
        SamplingParams(min_p=0.05, top_p=0.95, top_k=40),
        SamplingParams(top_p=1e-9),
    ],
)
def test_draws_follow_the_filtered_distribution(params: SamplingParams) -> None:
    logits = logits_of(1)
    draws = 4000
    chosen = pick(
        logits.expand(draws, -1),
        [params] * draws,
        [(draw + 0.5) / draws for draw in range(draws)],
    )
    counts = Counter(chosen.tolist())
    expected = naive_kept(logits[0], params)
    assert set(counts) <= set(expected)
    for token, share in expected.items():
        assert counts[token] / draws == pytest.approx(share, abs=2 / draws)


@given(st.lists(st.sampled_from([-1.5, -0.0, 0.0, 0.25, 3.0]), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_equal_logits_are_ordered_by_lowest_id(values: list[float]) -> None:
    expected = sorted(range(len(values)), key=lambda token: (-values[token], token))
    for count in {1, len(values) // 2 + 1, len(values)}:
        assert top_tokens(torch.tensor([values]), count)[0].tolist() == expected[:count]


def test_a_large_vocabulary_with_a_flat_distribution_is_not_cut_at_the_first_try() -> None:
    logits = torch.zeros(1, 5000)
    last = pick(logits, [SamplingParams(top_p=0.999)], [0.9999])
    assert last.item() == pytest.approx(0.999 * 5000, abs=2)


def test_top_k_beyond_the_first_try_counts_all_of_its_mass() -> None:
    logits = torch.linspace(1e-3, 0, 5000)[None]
    params = SamplingParams(top_k=2000, top_p=0.5)
    last = pick(logits, [params], [0.99999]).item()
    assert last == max(naive_kept(logits[0], params))
    assert last == pytest.approx(1000, abs=2)


@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1100, max_size=1400),
    st.sampled_from([{"top_k": 700}, {"top_p": 0.7}, {"top_k": 1200, "min_p": 0.2}]),
    st.floats(0, 0.999),
)
@settings(max_examples=25, deadline=None)
def test_equal_logits_at_the_cut_are_kept_by_lowest_id(
    values: list[float], fields: dict[str, float], uniform_number: float
) -> None:
    params = SamplingParams(**fields)  # type: ignore[arg-type]
    chosen = pick(torch.tensor([values]), [params], [uniform_number]).item()
    assert chosen in naive_kept(torch.tensor(values), params)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(seed=7, top_p=0.9, temperature=1.3),
        SamplingParams(seed=7, temperature=1.3),
        SamplingParams(seed=7, top_k=3),
    ],
)
def test_a_seed_gives_the_same_tokens_whatever_else_is_in_the_batch(
    params: SamplingParams,
) -> None:
    alone = answer_among(0, params)
    assert alone == answer_among(5, params)
    assert len(set(alone)) > 5


def test_a_draw_that_depends_on_the_row_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_row(
        logits: torch.Tensor, params: list[SamplingParams], numbers: list[float]
    ) -> torch.Tensor:
        return pick(logits, params, [(n + 0.1 * row) % 1 for row, n in enumerate(numbers)])

    params = SamplingParams(seed=7, temperature=1.3)
    right = answer_among(5, params)
    monkeypatch.setattr("moe_serve.step.sampler.pick", by_row)
    assert answer_among(0, params) == right
    assert answer_among(5, params) != right


def answer_among(num_neighbours: int, params: SamplingParams) -> list[int]:
    """What one request draws as the last of a batch of others, the same logits each time."""
    sampler = Sampler(VOCABULARY, CPU)
    sampler.add(Request(request_id="x", prompt_ids=(1,), sampling=params))
    for name in range(num_neighbours):
        other = SamplingParams(seed=name, top_k=name, temperature=float(name % 2))
        sampler.add(Request(request_id=str(name), prompt_ids=(2,), sampling=other))
    tokens = []
    for step in range(20):
        rows = torch.cat([logits_of(num_neighbours, 100 + step), logits_of(1, step)])
        output = sampler.sample([*map(str, range(num_neighbours)), "x"], rows)
        tokens.append(output.tokens[-1].token_id)
    return tokens


def test_penalties_and_bias_match_the_definitions() -> None:
    params = SamplingParams(
        temperature=0.0,
        repetition_penalty=1.7,
        presence_penalty=0.4,
        frequency_penalty=0.3,
        logit_bias=((5, 2.5), (6, -100.0)),
        logprobs=VOCABULARY,
    )
    prompt = (3, 9, 9)
    sampler = Sampler(VOCABULARY, CPU)
    sampler.add(Request(request_id="x", prompt_ids=prompt, sampling=params))
    answer: list[int] = []
    for step in range(30):
        raw = logits_of(1, step % 3)[0]
        expected = raw.clone()
        expected[5] += 2.5
        expected[6] -= 100.0
        for token in {*prompt, *answer}:
            value = expected[token]
            expected[token] = value / 1.7 if value > 0 else value * 1.7
        for token, count in Counter(answer).items():
            expected[token] -= 0.4 + 0.3 * count
        (sampled,) = sampler.sample(["x"], raw[None].clone()).tokens
        assert sampled.token_id == int(expected.argmax())
        own = torch.log_softmax(raw, -1)
        assert sampled.logprob == pytest.approx(float(own[sampled.token_id]), abs=1e-5)
        assert [token for token, _ in sampled.top_logprobs] == own.argsort(descending=True).tolist()
        answer.append(sampled.token_id)
    assert len(set(answer)) < len(answer)


def test_logprobs_are_given_only_where_asked_for() -> None:
    sampler = Sampler(VOCABULARY, CPU)
    for name, logprobs in (("none", None), ("own", 0), ("three", 3)):
        sampling = SamplingParams(temperature=0.0, logprobs=logprobs)
        sampler.add(Request(request_id=name, prompt_ids=(1,), sampling=sampling))
    none, own, three = sampler.sample(["none", "own", "three"], logits_of(3)).tokens
    assert none.logprob is None and none.top_logprobs == ()
    assert own.logprob is not None and own.top_logprobs == ()
    assert three.top_logprobs[0] == (three.token_id, pytest.approx(three.logprob))
    assert len(three.top_logprobs) == 3


def test_uniform_numbers_are_spread_and_repeatable() -> None:
    numbers = np.array([[uniform(seed, step) for step in range(50)] for seed in range(50)])
    assert uniform(3, 4) == numbers[3, 4]
    assert len(np.unique(numbers)) == numbers.size
    assert numbers.mean() == pytest.approx(0.5, abs=0.02)
    assert abs(np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < 0.05
    assert uniform(-1, 0) == uniform((1 << 64) - 1, 0)
