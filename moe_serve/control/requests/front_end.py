"""Starts the front-end process from rank 0 and watches over it."""

import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from moe_serve.config.tree import Config
from moe_serve.control.balancing.balance import ServedDeployment
from moe_serve.control.planning.slices import SlicePlan
from moe_serve.errors import BringUpError, EngineDeadError
from moe_serve.types import ServedModel

DRAIN = b"drain"
# What an MPI launcher puts into a rank's environment; the front end is no rank.
_LAUNCHER_PREFIXES = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "MPI_")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEndStart:
    """All that the front end is told, on its standard input, once the ranks can answer.

    Attributes:
        models: by number of the tenant.
        addresses: of the ranks' links, by plan rank.
        rank_weights: share of each rank in the requests to a model that is on all of them.
        prefill_ranks, max_local_prefill: see Router.
        block_size: tokens of a cached prefix come in blocks of so many; 0 where none are kept.
        max_live: requests of one model that one rank may hold.
        deployment: of the model whose experts may move, for `/v1/plan` and for rebalancing.
        config: as it was read, for models that come later.
        slices: who has which share; None where one model has the ranks to itself.
    """

    url: str
    models: tuple[ServedModel, ...]
    addresses: tuple[str, ...]
    secret: bytes
    rank_weights: tuple[float, ...]
    prefill_ranks: tuple[int, ...]
    max_local_prefill: int
    block_size: int
    max_live: int
    deployment: ServedDeployment
    config: Config
    slices: SlicePlan | None


class FrontEnd:
    """The front-end process, a child of rank 0 in a session of its own.

    It outlives a killed rank 0 just long enough to tell its clients: the end of its standard
    input is its sign that the ranks are gone. Why it cannot go on itself it says on a pipe.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._complaints, complain = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moe_serve.edge.main", str(listener.fileno()), str(complain)],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno(), complain],
            start_new_session=True,
            env={
                name: value
                for name, value in os.environ.items()
                if not name.startswith(_LAUNCHER_PREFIXES)
            },
        )
        os.close(complain)

    def start(self, message: FrontEndStart) -> None:
        """
        Raises:
            BringUpError, EngineDeadError: it has ended already; see `watch`.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._process.wait()
            self.watch()

    def drain(self) -> None:
        """Ask it to finish what is live, stop the ranks, and exit; a signal handler may do so."""
        assert self._process.stdin is not None
        # Past the buffer, which a signal may find in use. If it is gone, `watch` will say so.
        with suppress(BrokenPipeError):
            os.write(self._process.stdin.fileno(), DRAIN + b"\n")

    def watch(self) -> None:
        """Raise if it has died; one that has told the ranks to stop has not.

        Raises:
            BringUpError: it said why.
            EngineDeadError: it did not.
        """
        if code := self._process.poll():
            complaint = os.read(self._complaints, 1 << 16).decode()
            if complaint:
                raise BringUpError(complaint)
            how = f"with exit code {code}" if code > 0 else f"by signal {-code}"
            raise EngineDeadError(f"the front end was ended {how}; its requests are lost")

    def finish(self, seconds: float = 35.0) -> None:
        """Wait for its end after the ranks agreed to stop: slow readers have their grace first."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def listen(host: str, port: int) -> socket.socket:
    """The HTTP socket, bound before anything slow so that a taken port is known at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise BringUpError(
            f"cannot listen on {host}:{port}: {error.strerror}; "
            "stop what uses it or change server.port (0 picks a free one)"
        ) from None
    return listener
