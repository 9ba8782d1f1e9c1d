"""Two small models on one rank: shares of its time under load, lent when idle, and changed."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from live_server import LiveServer, live_server
from slice_clients import (
    ADMIN_HEADERS,
    PROMPTS,
    Answers,
    busy,
    generate,
    shares_within,
    slices_config,
    text_of,
)


@pytest.fixture(scope="module")
def one_rank(
    model_paths: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("one-rank")
    slices = {
        "small": {"slice": {"compute_percent": 30, "memory_mb": 128}},
        "little": {"slice": {"compute_percent": 60, "memory_mb": 128}},
    }
    with live_server(folder, 1, slices_config(model_paths, 1, slices, folder)) as server:
        yield server


def resize(url: str, model: str, **asked: object) -> None:
    answer = httpx.patch(f"{url}/v1/slices/{model}", json=asked, headers=ADMIN_HEADERS)
    assert answer.status_code == 200, answer.text


def test_models_under_load_get_their_shares_and_answer_as_alone(
    one_rank: LiveServer, answers: Answers
) -> None:
    url = one_rank.url
    with busy(url, ["small", "little"], 5):
        shares = shares_within(url, 2.0)
        assert text_of(generate(url, "small", PROMPTS[2])) == answers["small"][2]
        assert text_of(generate(url, "little", PROMPTS[2])) == answers["little"][2]
    # Also of the tenth that nobody asked for.
    assert shares["small"][0] == pytest.approx(1 / 3, abs=0.05)
    assert shares["little"][0] == pytest.approx(2 / 3, abs=0.05)


def test_idle_time_is_lent(one_rank: LiveServer) -> None:
    with busy(one_rank.url, ["small"], 5):
        shares = shares_within(one_rank.url, 1.5)
    assert shares["small"][0] > 0.85


@pytest.mark.slow
def test_a_share_changes_under_load(one_rank: LiveServer) -> None:
    url = one_rank.url
    with busy(url, ["small", "little"], 5):
        resize(url, "small", compute_percent=10)
        resize(url, "little", compute_percent=90)
        shares = shares_within(url, 2.0)
    assert shares["small"][0] == pytest.approx(0.1, abs=0.05)
    resize(url, "little", compute_percent=60, mode="hard")
    with busy(url, ["little"], 5):
        shares = shares_within(url, 2.0)
    assert shares["little"][0] == pytest.approx(0.6, abs=0.05)


def test_memory_shrinks_and_grows_while_it_serves(one_rank: LiveServer, answers: Answers) -> None:
    url = one_rank.url
    resize(url, "small", memory_mb=112)
    assert text_of(generate(url, "small", PROMPTS[0])) == answers["small"][0]
    resize(url, "small", memory_mb=128)
    few = httpx.patch(f"{url}/v1/slices/small", json={"memory_mb": 2}, headers=ADMIN_HEADERS)
    assert few.status_code == 409
    assert "2.0 MiB asked for a model, its weights and working space take" in few.text
    assert text_of(generate(url, "small", PROMPTS[1])) == answers["small"][1]
