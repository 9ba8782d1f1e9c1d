"""Where mpiruns meet: what the config must say for it."""

from dataclasses import replace
from pathlib import Path

import pytest

from moe_serve.config.tree import Config, ModelConfig, PoolConfig, WorldConfig
from moe_serve.control.meeting.join import config_digest
from moe_serve.control.meeting.meeting_point import meeting_point
from moe_serve.errors import ConfigError


def config(address: str, secret: Path | str = "") -> Config:
    return Config(
        models=(ModelConfig(path="demo"),),
        pools=(PoolConfig(name="host", device="cpu"),),
        world=WorldConfig(address=address, secret=str(secret), wait=7.0),
    )


@pytest.mark.parametrize("address", ["127.0.0.1:7000", "localhost:7000", "[::1]:7000"])
def test_loopback_may_do_without_a_secret(address: str) -> None:
    point = meeting_point(config(address))
    assert (point.address, point.secret, point.wait_seconds) == (address, b"", 7.0)


def test_a_secret_is_read_and_kept_out_of_sight(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("swordfish\n")
    point = meeting_point(config("10.0.0.1:7000", file))
    assert point.secret == b"swordfish"
    assert "swordfish" not in repr(point)
    assert point.key(b"one") != point.key(b"two")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", r"^world\.address: not given"),
        ("10.0.0.1", r"^world\.address: expected HOST:PORT, got '10\.0\.0\.1'"),
        ("10.0.0.1:http", r"^world\.address: expected HOST:PORT"),
        ("10.0.0.1:7000", r"^world\.secret: not given, and others .* reach 10\.0\.0\.1:7000"),
        ("somewhere.example:7000", r"^world\.secret: not given"),
    ],
)
def test_addresses_that_will_not_do(address: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        meeting_point(config(address))


def test_secrets_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"world\.secret: cannot read /none"):
        meeting_point(config("10.0.0.1:7000", "/none"))
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="is empty; fill it"):
        meeting_point(config("10.0.0.1:7000", tmp_path / "empty"))


def test_places_are_each_mpiruns_own_and_what_is_done_there_is_common() -> None:
    here, there = config("10.0.0.1:7000", "a"), config("10.0.0.2:7000", "b")
    assert config_digest(here) == config_digest(there)
    models = (ModelConfig(path="/elsewhere/demo"),)
    assert config_digest(here) == config_digest(replace(here, models=models))
    models = (ModelConfig(path="/elsewhere/other"),)
    assert config_digest(here) != config_digest(replace(here, models=models))
    longer = replace(here, world=replace(here.world, deadline=5.0))
    assert config_digest(here) != config_digest(longer)
