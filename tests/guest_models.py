"""Models that come while others are served: how they are posted, spoiled and asked."""

import asyncio
import json
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx

SMALL = {"small": {"slice": {"compute_percent": 40, "memory_mb": 128}}}


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


def spoiled(path: Path, folder: Path, **fields: Any) -> Path:
    """A copy of a checkpoint whose config.json says something else."""
    copy = Path(shutil.copytree(path, folder / "spoiled"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | fields))
    return copy


def run_for_seconds(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))
