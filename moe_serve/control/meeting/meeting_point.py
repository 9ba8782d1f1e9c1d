"""Where the mpiruns of one world meet, as the config says it."""

import ipaddress
from pathlib import Path

from moe_comm.transport.rendezvous_point import MeetingPoint
from moe_comm.transport.tcp_connect import split_address

from moe_serve.config.tree import Config
from moe_serve.errors import ConfigError

_LOCALHOST = "localhost"


def meeting_point(config: Config) -> MeetingPoint:
    """
    Raises:
        ConfigError: no address, an address that is none or that needs a secret, or a secret
            that cannot be read.
    """
    world = config.world
    if not world.address:
        raise ConfigError(
            "world.address: not given, and the pools are of several mpiruns; set it to HOST:PORT "
            "of the host of the first pool"
        )
    try:
        host, _ = split_address(world.address)
    except ValueError:
        raise ConfigError(f"world.address: expected HOST:PORT, got {world.address!r}") from None
    if not world.secret and not _is_loopback(host):
        raise ConfigError(
            f"world.secret: not given, and others than this host reach {world.address}; name a "
            "file that holds the same secret for all mpiruns, or use a loopback address"
        )
    secret = _read_secret(Path(world.secret)) if world.secret else b""
    return MeetingPoint(world.address, secret, world.wait)


def _is_loopback(host: str) -> bool:
    try:
        return host == _LOCALHOST or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read_secret(file: Path) -> bytes:
    try:
        secret = file.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"world.secret: cannot read {file}: {error.strerror}") from None
    if not secret:
        raise ConfigError(
            f"world.secret: {file} is empty; fill it, for example: openssl rand -hex 32"
        )
    return secret
