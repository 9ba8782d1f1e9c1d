"""What a server lacks besides its config is told before torch is loaded."""

import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from moe_serve.config.tree import Config, ModelConfig, PoolConfig, ServerConfig
from moe_serve.early_checks import check_front_end, check_memory, check_models, check_plan
from moe_serve.errors import CheckpointError, ConfigError, PlacementError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory with all that is looked at early, and no weights."""
    (tmp_path / "config.json").write_text("{}")
    Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def config_of(model: Path | str, api_keys: str = "") -> Config:
    return Config(
        models=(ModelConfig(path=str(model)),),
        pools=(PoolConfig(name="host", device="cpu"),),
        server=ServerConfig(port=0, api_keys=api_keys),
    )


def test_what_is_there_passes(model: Path) -> None:
    keys = model / "keys"
    keys.write_text(sha256(b"key").hexdigest())
    for config in (config_of(model, str(keys)), config_of("demo")):
        check_models(config)
        check_front_end(config)


def test_models_that_no_rank_could_load(model: Path) -> None:
    with pytest.raises(ConfigError, match="has no weights, it can only be checked"):
        check_models(config_of("builtin:mixtral_8x7b"))
    with pytest.raises(ConfigError, match=r"model\.path: no such directory: /nowhere"):
        check_models(config_of("/nowhere"))
    (model / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"holds no readable config\.json"):
        check_models(config_of(model))


def test_key_files_that_the_front_end_could_not_use(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"server\.api_keys: cannot read /nowhere"):
        check_front_end(config_of(model, "/nowhere"))
    (model / "keys").write_text("# nobody\n")
    with pytest.raises(ConfigError, match=r"server\.api_keys: .*has no keys"):
        check_front_end(config_of(model, str(model / "keys")))


def test_tokenizers_that_the_front_end_could_not_read(model: Path) -> None:
    (model / "tokenizer.json").write_text('{"version": "1.0", "model": {}}')
    with pytest.raises(CheckpointError, match=f"cannot read the tokenizer in {model}: "):
        check_front_end(config_of(model))
    (model / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json; save one there with"):
        check_front_end(config_of(model))


def demo_of(*pools: PoolConfig) -> Config:
    return Config(models=(ModelConfig(path="demo", dtype="float32"),), pools=pools)


def test_pools_that_declare_more_memory_than_their_host_has() -> None:
    pools = (
        PoolConfig(name="gpu", device="cuda", memory=1 << 60),
        PoolConfig(name="host", device="cpu", ranks=2, memory=1 << 50),
        PoolConfig(name="small", device="emulated", hardware="h20", memory=1 << 20),
        PoolConfig(name="whole", device="emulated", hardware="h20", memory=0),
    )
    for rank in (0, 3):
        check_memory(demo_of(*pools), rank)
    with pytest.raises(ConfigError, match=r"pools\[1\]\.memory: 1048576\.0 GiB for each rank, and"):
        check_memory(demo_of(*pools), 2)


def test_an_emulated_device_larger_than_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe_serve.early_checks.host_memory", lambda: 16 << 30)
    config = demo_of(PoolConfig(name="whole", device="emulated", hardware="h20"))
    with pytest.raises(ConfigError, match=r"\[0\]\.memory: 96\.0 GiB .* this host has 16\.0 GiB"):
        check_memory(config, 0)


def test_plans_that_cannot_be() -> None:
    host = PoolConfig(name="host", device="cpu", ranks=2)
    check_plan(demo_of(host))
    with pytest.raises(PlacementError, match=r"plan needs .* on cpu:0, 3\.6 MiB free"):
        check_plan(demo_of(replace(host, memory=4 << 20)))
    with pytest.raises(ConfigError, match="has role experts and no pool beside it has attention"):
        check_plan(demo_of(replace(host, role="experts")))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("server.api_keys=/nowhere", "moe_serve: error: server.api_keys: cannot read /nowhere"),
        ("server.port=0", "moe_serve: error: cannot read the tokenizer in "),
    ],
)
def test_the_command_tells_it_before_torch_is_loaded(model: Path, fault: str, said: str) -> None:
    (model / "tokenizer.json").write_text("{")
    file = model / "config.yaml"
    file.write_text(f"model: {{path: {model}}}\npools: [{{name: host, device: cpu}}]\n")
    words = ["-X", "importtime", "-m", "moe_serve.cli", "--config", str(file), "--set", fault]
    found = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60)
    assert found.returncode == 2
    lines = [line for line in found.stderr.splitlines() if not line.startswith("import time:")]
    assert len(lines) == 1 and lines[0].startswith(said)
    modules = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert "moe_serve.early_checks" in modules
    assert not {"torch", "transformers"} & modules
