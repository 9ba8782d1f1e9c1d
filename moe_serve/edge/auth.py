"""API keys: only their SHA-256 digests are kept, compared in constant time."""

import hmac
import logging
import re
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from moe_serve.edge.errors import ApiKeyError, error_response
from moe_serve.errors import ConfigError

OPEN_PATHS = frozenset({"/health", "/ready", "/metrics"})
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")

logger = logging.getLogger(__name__)


def read_keys(path: Path, key: str = "server.api_keys") -> frozenset[str]:
    """Digests of a key file: one in hex per line; empty lines and `#` comments are skipped.

    Args:
        key: of the config, that names the file.

    Raises:
        ConfigError: no such file, a line that is no digest, or no digest at all.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: cannot read {path}: {error}") from error
    keys = set()
    for number, line in enumerate((line.strip() for line in lines), start=1):
        if not line or line.startswith("#"):
            continue
        if not _DIGEST.fullmatch(line):
            raise ConfigError(
                f"{key}: line {number} of {path} is not a SHA-256 digest in hex; "
                "make one with: printf %s KEY | sha256sum"
            )
        keys.add(line.lower())
    if not keys:
        raise ConfigError(f"{key}: {path} has no keys; add one or leave the key out")
    return frozenset(keys)


def warn_if_exposed(address: str) -> None:
    """Log a warning unless `address`, an IP that answers without keys, is this machine's alone."""
    if not ip_address(address).is_loopback:
        logger.warning(
            "server.host: whoever reaches %s may use this server without a key; "
            "set server.api_keys, or server.host to 127.0.0.1",
            address,
        )


class ApiKeyMiddleware:
    """Lets a request through that carries a known key, or asks for an open path."""

    def __init__(self, app: ASGIApp, keys: frozenset[str]) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._may_pass(scope):
            await self._app(scope, receive, send)
            return
        error = ApiKeyError("no API key, or an unknown one; send `Authorization: Bearer KEY`")
        await error_response(error)(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        return knows(self._keys, Headers(scope=scope))


def knows(keys: frozenset[str], headers: Headers) -> bool:
    """Whether a request carries one of the keys."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    digest = sha256(key.strip().encode("latin-1")).hexdigest()
    # All of them, so that the time does not tell which key was nearly right.
    matches = [hmac.compare_digest(digest, known) for known in keys]
    return scheme.lower() == "bearer" and any(matches)
