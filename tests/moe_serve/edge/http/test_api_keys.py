"""API keys: read from their file, asked for on every path but the open ones."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from moe_serve.edge.auth import read_keys
from moe_serve.errors import ConfigError

KEYS = frozenset(sha256(key.encode()).hexdigest() for key in ("first key", "密钥"))


def test_reads_digests_and_skips_comments(tmp_path: Path) -> None:
    first, second = sorted(KEYS)
    (tmp_path / "keys").write_text(f"# team a\n{first.upper()}\n\n  {second}  \n")
    assert read_keys(tmp_path / "keys") == KEYS


@pytest.mark.parametrize("line", ["my-secret-key", "ab" * 31, "g" * 64])
def test_refuses_what_is_no_digest_without_showing_it(tmp_path: Path, line: str) -> None:
    (tmp_path / "keys").write_text(f"# a\n{line}\n")
    with pytest.raises(ConfigError, match=r"line 2 of .* sha256sum") as raised:
        read_keys(tmp_path / "keys")
    assert line not in str(raised.value)


def test_refuses_a_file_that_is_missing_or_has_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_keys(tmp_path / "keys")
    (tmp_path / "keys").write_text("# none yet\n")
    with pytest.raises(ConfigError, match="has no keys"):
        read_keys(tmp_path / "keys")


def test_only_known_keys_get_in(serve: Callable[..., Any]) -> None:
    with serve(api_keys=KEYS) as server:
        refused = [
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Bearer"},
            {"authorization": "Basic first key"},
            {"authorization": f"Bearer {min(KEYS)}"},
        ]
        for headers in refused:
            response = server.client.get("/v1/models", headers=headers)
            assert response.status_code == 401, headers
            assert response.json()["error"]["code"] == "invalid_api_key"
        assert server.client.get("/v1/plan").status_code == 401
        for key in ("first key", "密钥"):
            headers = {"authorization": f"Bearer {key}".encode()}
            assert server.client.get("/v1/models", headers=headers).status_code == 200
        for path in ("/health", "/ready", "/metrics"):
            assert server.client.get(path).status_code == 200
