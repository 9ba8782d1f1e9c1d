"""Models that cannot be loaded while one rank serves: with which status and words."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from guest_models import SMALL, generated, guest, run_for_seconds, spoiled
from rank_in_thread import config_of, served


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
            assert refused.status_code == 400, refused.text
            assert "Error" in refused.text
            assert (await generated(here.client, "small")).status_code == 200
            good = await here.client.post("/v1/slices", json=guest(model_paths["embedder"]))
            assert good.status_code == 200, good.text

    run_for_seconds(run())


# What only a rank that loads it finds, of a model that generates and of an encoder.
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("little", {"num_hidden_layers": 4}, "has no tensor model.layers.3"),
    ("little", {"intermediate_size": 161}, "expected [161, 96]"),
    ("little", {"hidden_act": "foo"}, "hidden_act=foo is not supported"),
    ("little", {"rope_scaling": {"type": "longrope"}}, "rotary scaling longrope"),
    ("little", {"rope_scaling": {"type": "linear", "factor": "x"}}, "factor is 'x'"),
    ("little", {"quantization_config": "x"}, "expected an object"),
    ("little", {"architectures": 3}, "architecture 3 is not served"),
    ("embedder", {"num_hidden_layers": 3}, "lacks 16 tensors"),
    ("embedder", {"intermediate_size": 129}, "transformers cannot read"),
]


def test_what_is_wrong_with_a_checkpoint_is_wrong_whatever_else_is_served(
    model_paths: Mapping[str, Path], tmp_path: Path
) -> None:
    async def run() -> None:
        async with served(config_of(model_paths, SMALL, tmp_path)) as here:
            for number, (name, wrong, said) in enumerate(WRONG):
                bad = guest(spoiled(model_paths[name], tmp_path / str(number), **wrong))
                refused = await here.client.post("/v1/slices", json=bad)
                assert (refused.status_code, said in refused.text) == (400, True), refused.text
            assert (await generated(here.client, "small")).status_code == 200

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
            assert refused.status_code == 400, refused.text
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
                planted.setattr("moe_serve.tenant_loader.load_encoder", _bug)
                failed = await here.client.post("/v1/slices", json=guest(model_paths["embedder"]))
            assert failed.status_code == 500
            assert "rank 0 cannot load model guest: KeyError: 'left'; its log" in failed.text
            with monkeypatch.context() as planted:
                planted.setattr("moe_serve.edge.service.load_tenant", _no_memory)
                failed = await here.client.post("/v1/slices", json=guest(model_paths["embedder"]))
            assert failed.status_code == 500
            free = (await here.client.get("/v1/slices")).json()["ranks"]
            assert free[0]["free_compute_percent"] == 60
            good = await here.client.post("/v1/slices", json=guest(model_paths["embedder"]))
            assert good.status_code == 200, good.text

    run_for_seconds(run())


def _bug(*_arguments: Any, **_options: Any) -> None:
    raise KeyError("left")


def _no_memory(*_arguments: Any, **_options: Any) -> None:
    raise MemoryError("3 bytes")


# Beside a checkpoint that could be served: what is refused, with which status and words.
REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"slice": {"isolate": "sm", "compute_percent": 1}}, 409, "when the server starts"),
    ({"rank": 3}, 400, "there is no rank 3"),
    ({"slice": {"memory_mb": 1 << 43}}, 409, "asks for 8796093022208 MiB, and no rank has"),
    ({"name": "small"}, 409, "is served already"),
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
