"""Models that come, go and change while one rank serves, and what their clients get to see."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from guest_models import SMALL, completion, generated, guest, run_for_seconds
from rank_in_thread import Served, config_of, served

CHAT = {"model": "small", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}


def long_answers(client: httpx.AsyncClient, model: str) -> "asyncio.Task[httpx.Response]":
    """Some that take seconds together."""
    return asyncio.create_task(generated(client, model, 1000, 16))


async def until_live(here: Served, num_live: int) -> None:
    async with asyncio.timeout(20):
        while here.engine.num_live < num_live:
            await asyncio.sleep(0.005)


def test_live_requests_have_their_grace_and_end_with_it(
    model_paths: Mapping[str, Path], tmp_path: Path
) -> None:
    async def run() -> None:
        async with served(config_of(model_paths, SMALL, tmp_path)) as here:
            client = here.client
            await client.post("/v1/slices", json=guest(model_paths["little"]))
            short = asyncio.create_task(generated(client, "guest", 20))
            long = long_answers(client, "guest")
            body = completion("guest", 1000, stream=True)
            streamed = asyncio.create_task(client.post("/v1/completions", json=body))
            await until_live(here, 18)
            gone = asyncio.create_task(client.delete("/v1/slices/guest?grace=0.5"))
            await asyncio.sleep(0)
            assert (await generated(client, "guest")).status_code == 404
            assert (await gone).status_code == 200
            assert (await short).status_code == 200
            cut = await long
            assert cut.status_code == 404
            error = cut.json()["error"]
            assert (error["code"], error["param"]) == ("model_not_found", "model")
            assert error["message"] == "the model was unloaded before the request ended"
            # No line says that it was done.
            assert json.loads((await streamed).text.split("data: ")[-1]) == {"error": error}
            assert here.engine.num_live == 0

    run_for_seconds(run())


def test_a_request_that_is_still_being_read_has_its_grace_too(
    model_paths: Mapping[str, Path], tmp_path: Path
) -> None:
    async def run() -> None:
        async with served(config_of(model_paths, SMALL, tmp_path)) as here:
            client = here.client
            await client.post("/v1/slices", json=guest(model_paths["embedder"]))
            # Longer than all pieces that are under way at once.
            body = {"model": "guest", "input": ["a long tale of salt, timber and wool"] * 400}
            asked = asyncio.create_task(client.post("/v1/embeddings", json=body))
            await asyncio.sleep(0.002)
            assert here.engine.num_live == 0, "it is read in a thread"
            assert (await client.delete("/v1/slices/guest?grace=30")).status_code == 200
            answer = await asked
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["data"]) == 400

    run_for_seconds(run())


def test_without_grace_a_request_that_is_still_being_read_names_an_unknown_model(
    model_paths: Mapping[str, Path], tmp_path: Path
) -> None:
    async def run() -> None:
        async with served(config_of(model_paths, SMALL, tmp_path)) as here:
            client = here.client
            await client.post("/v1/slices", json=guest(model_paths["embedder"]))
            body = {"model": "guest", "input": ["a long tale of salt, timber and wool"] * 400}
            asked = asyncio.create_task(client.post("/v1/embeddings", json=body))
            await asyncio.sleep(0.002)
            assert (await client.delete("/v1/slices/guest?grace=0")).status_code == 200
            assert (await asked).status_code == 404
            # Nobody takes the next model for the one that is gone.
            again = await client.post("/v1/slices", json=guest(model_paths["little"]))
            assert again.status_code == 200
            assert [1 in here.rank.tenants, 2 in here.rank.tenants] == [False, True]

    run_for_seconds(run())


def test_others_change_while_a_model_has_its_grace(
    model_paths: Mapping[str, Path], tmp_path: Path
) -> None:
    async def run() -> None:
        async with served(config_of(model_paths, SMALL, tmp_path)) as here, asyncio.timeout(30):
            client, sized = here.client, {"slice": {"compute_percent": 20, "memory_mb": 128}}
            await client.post("/v1/slices", json=guest(model_paths["little"], **sized))
            long = long_answers(client, "guest")
            await until_live(here, 16)
            gone = asyncio.create_task(client.delete("/v1/slices/guest?grace=1"))
            await asyncio.sleep(0)
            resized = await client.patch("/v1/slices/small", json={"compute_percent": 50})
            assert resized.status_code == 200
            assert not gone.done()
            for refused in (
                await client.patch("/v1/slices/guest", json={"compute_percent": 5}),
                await client.delete("/v1/slices/guest"),
                await client.post("/v1/slices", json=guest(model_paths["little"])),
            ):
                assert refused.status_code == 409, refused.text
                assert "is being unloaded" in refused.text
            assert (await gone).status_code == 200
            assert (await long).status_code in (200, 404)
            assert (await client.delete("/v1/slices/guest")).status_code == 404

    run_for_seconds(run())


def test_the_longest_request_follows_a_model_s_memory(
    model_paths: Mapping[str, Path], tmp_path: Path
) -> None:
    async def length(client: httpx.AsyncClient) -> int:
        found = (await client.get("/v1/models/small")).json()
        return int(found["max_model_len"])

    async def run() -> None:
        async with served(config_of(model_paths, SMALL, tmp_path)) as here:
            client = here.client
            before = await length(client)
            least = await client.patch("/v1/slices/small", json={"memory_mb": 1})
            assert least.status_code == 409
            mib = await _shrink(client, 128)
            assert await length(client) < before, "less memory was no less context"
            answer = await client.post("/v1/chat/completions", json=CHAT)
            assert answer.status_code == 200, answer.text
            grown = await client.patch("/v1/slices/small", json={"memory_mb": mib + 1})
            assert grown.status_code == 200
            assert await length(client) <= before
            await client.patch("/v1/slices/small", json={"memory_mb": 128})
            assert await length(client) == before

    run_for_seconds(run())


async def _shrink(client: httpx.AsyncClient, memory_mb: int) -> int:
    """To the least that is accepted."""
    while True:
        answer = await client.patch("/v1/slices/small", json={"memory_mb": memory_mb - 1})
        if answer.status_code != 200:
            return memory_mb
        memory_mb -= 1


@pytest.mark.slow
def test_a_share_changes_beside_a_number_of_pages_that_is_given(
    model_paths: Mapping[str, Path], tmp_path: Path
) -> None:
    async def run() -> None:
        hard = {"small": {"slice": {"compute_percent": 95, "memory_mb": 128, "mode": "hard"}}}
        config = config_of(model_paths, hard, tmp_path)
        config = replace(config, cache=replace(config.cache, num_pages=20))
        async with served(config) as here:
            all_pages = await _fill_cache(here.client, range(3))
            resized = await here.client.patch("/v1/slices/small", json={"compute_percent": 90})
            assert resized.status_code == 200, resized.text
            assert await _fill_cache(here.client, range(3, 6)) == all_pages

    run_for_seconds(run())


async def _fill_cache(client: httpx.AsyncClient, first_tokens: range) -> int:
    """Bytes that the model holds after answers to so many prompts that differ."""
    for token in first_tokens:
        body = completion("small", 160, prompt=[token, 6, 7])
        (await client.post("/v1/completions", json=body)).raise_for_status()
    (used,) = (await client.get("/v1/slices")).json()["data"][0]["used"]
    return int(used["memory_bytes"]["cache"])
