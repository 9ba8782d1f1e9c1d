"""Models that come, go and change while one rank serves, and what their clients get to see."""

import asyncio
import json
import shutil
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from rank_in_thread import Served, config_of, served

SMALL = {"small": {"slice": {"compute_percent": 40, "memory_mb": 128}}}
CHAT = {"model": "small", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}


def guest(path: Path, name: str = "guest", **fields: Any) -> dict[str, Any]:
    return {"path": str(path), "name": name, "dtype": "float32", **fields}


def completion(model: str, num_tokens: int, **fields: Any) -> dict[str, Any]:
    body = {"model": model, "prompt": [5, 6, 7], "max_tokens": num_tokens, "temperature": 0}
    return {**body, "ignore_eos": True, **fields}


async def generated(
    client: httpx.AsyncClient, model: str, num_tokens: int = 4, num_choices: int = 1
) -> httpx.Response:
    body = completion(model, num_tokens, n=num_choices)
    return await client.post("/v1/completions", json=body)


def long_answers(client: httpx.AsyncClient, model: str) -> "asyncio.Task[httpx.Response]":
    """Some that take seconds together."""
    return asyncio.create_task(generated(client, model, 1000, 16))


def run_for_seconds(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


async def until_live(here: Served, num_live: int) -> None:
    async with asyncio.timeout(20):
        while here.engine.num_live < num_live:
            await asyncio.sleep(0.005)


def spoiled(path: Path, folder: Path, **fields: Any) -> Path:
    """A copy of a checkpoint whose config.json says something else."""
    copy = Path(shutil.copytree(path, folder / "spoiled"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | fields))
    return copy


@pytest.mark.parametrize(
    "wrong", [{"hidden_act": "foo"}, {"layer_norm_eps": None}], ids=["activation", "epsilon"]
)
def test_a_checkpoint_that_transformers_chokes_on_is_refused_and_others_go_on(
    model_paths: Mapping[str, Path], tmp_path: Path, wrong: dict[str, Any]
) -> None:
    async def run() -> None:
        async with served(config_of(model_paths, SMALL, tmp_path)) as here:
            bad = guest(spoiled(model_paths["embedder"], tmp_path, **wrong))
            refused = await here.client.post("/v1/slices", json=bad)
            assert refused.status_code == 409, refused.text
            assert "Error" in refused.text
            assert (await generated(here.client, "small")).status_code == 200
            good = await here.client.post("/v1/slices", json=guest(model_paths["embedder"]))
            assert good.status_code == 200, good.text

    run_for_seconds(run())


@pytest.mark.parametrize("wrong", ["x", True, 2**70])
def test_end_tokens_that_are_none_are_refused_and_others_go_on(
    model_paths: Mapping[str, Path], tmp_path: Path, wrong: Any
) -> None:
    copy = Path(shutil.copytree(model_paths["little"], tmp_path / "spoiled"))
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": wrong}))

    async def run() -> None:
        async with served(config_of(model_paths, SMALL, tmp_path)) as here:
            refused = await here.client.post("/v1/slices", json=guest(copy))
            assert refused.status_code == 409, refused.text
            assert "expected a token id or a list of them" in refused.text
            assert (await generated(here.client, "small")).status_code == 200

    run_for_seconds(run())


def test_whatever_a_load_raises_ends_that_load_alone(
    model_paths: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with served(config_of(model_paths, SMALL, tmp_path)) as here:
            with monkeypatch.context() as planted:
                planted.setattr("moe_serve.tenant_loader.load_encoder", _no_memory)
                refused = await here.client.post("/v1/slices", json=guest(model_paths["embedder"]))
            assert refused.status_code == 409, refused.text
            assert "cannot load model guest: MemoryError: 3 bytes" in refused.text
            with monkeypatch.context() as planted:
                planted.setattr("moe_serve.edge.service.load_tenant", _no_memory)
                failed = await here.client.post("/v1/slices", json=guest(model_paths["embedder"]))
            assert failed.status_code == 500
            free = (await here.client.get("/v1/slices")).json()["ranks"]
            assert free[0]["free_compute_percent"] == 60
            good = await here.client.post("/v1/slices", json=guest(model_paths["embedder"]))
            assert good.status_code == 200, good.text

    run_for_seconds(run())


def _no_memory(*_arguments: Any, **_options: Any) -> None:
    raise MemoryError("3 bytes")


def test_live_requests_have_their_grace_and_end_with_it(
    model_paths: Mapping[str, Path], tmp_path: Path
) -> None:
    async def run() -> None:
        async with served(config_of(model_paths, SMALL, tmp_path)) as here:
            client = here.client
            await client.post("/v1/slices", json=guest(model_paths["little"]))
            short = asyncio.create_task(generated(client, "guest", 20))
            long = long_answers(client, "guest")
            await until_live(here, 17)
            gone = asyncio.create_task(client.delete("/v1/slices/guest?grace=0.5"))
            await asyncio.sleep(0)
            assert (await generated(client, "guest")).status_code == 404
            assert (await gone).status_code == 200
            assert (await short).status_code == 200
            assert (await long).status_code == 503
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
            assert (await long).status_code in (200, 503)
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


# Beside a checkpoint that could be served: what is refused, with which status and words.
REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"slice": {"isolate": "sm", "compute_percent": 1}}, 409, "when the server starts"),
    ({"rank": 3}, 400, "there is no rank 3"),
    ({"slice": {"memory_mb": 1 << 43}}, 409, "asks for 8796093022208 MiB, and no rank has"),
    ({"name": "small"}, 400, "is served already"),
    ({"name": "line\nbreak"}, 400, "cannot be the last part of a URL"),
    ({"name": ".."}, 400, "cannot be the last part of a URL"),
    ({"path": "~nobody-of-this-name/x"}, 400, "give the whole path"),
    ({"path": "/" + "a" * 5000}, 400, "File name too long"),
]


def test_what_cannot_be_is_refused_before_it_is_read(
    model_paths: Mapping[str, Path], tmp_path: Path
) -> None:
    endless = spoiled(model_paths["little"], tmp_path, num_hidden_layers=10**9)

    async def run() -> None:
        async with served(config_of(model_paths, SMALL, tmp_path)) as here:
            layers: tuple[dict[str, Any], int, str] = (
                {"path": str(endless)},
                400,
                "num_hidden_lay",
            )
            for fields, status, said in [*REFUSED, layers]:
                body = guest(model_paths["little"]) | fields
                refused = await here.client.post("/v1/slices", json=body)
                assert (refused.status_code, said in refused.text) == (status, True), refused.text
            deep = await here.client.post("/v1/slices", content=b"[" * 3000)
            assert deep.status_code == 400 and "is not JSON" in deep.text

    run_for_seconds(run())
