"""`moe_serve` with a planted delay: on the second rank of an mpirun the first header that says stop
arrives no sooner than the membership has changed, which breaks the wait for it off."""

import os
import time
from typing import Any

from moe_comm.header import StepHeader, agree
from moe_comm.transport.exchange import PeerLostError

from moe_serve.cli import main
from moe_serve.step import worker

LIMIT_SECONDS = 60.0


class LateHeader:
    def __init__(self) -> None:
        self._has_come = False

    def __call__(self, exchange: Any, header: StepHeader) -> StepHeader:
        agreed = agree(exchange, header)
        if agreed.stop and not self._has_come:
            self._has_come = True
            self._wait_for_change(exchange)
        return agreed

    def _wait_for_change(self, exchange: Any) -> None:
        end = time.monotonic() + LIMIT_SECONDS
        # Over MPI, inside one mpirun; or over TCP.
        waits = getattr(exchange, "_loop", exchange)
        while not waits._should_stop():
            assert time.monotonic() < end, "the membership does not change"
            time.sleep(0.001)
        raise PeerLostError("told to stop in the midst of a header")


if __name__ == "__main__":
    if os.environ.get("OMPI_COMM_WORLD_RANK") == "1":
        worker.agree = LateHeader()
    main()
