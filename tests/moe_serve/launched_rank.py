"""Stands in for `moe_serve` on a rank: ready at once, drains on SIGUSR1, ends by itself late."""

import os
import signal
import sys
import time
from types import FrameType

LIFETIME = 60.0


def drain(number: int, frame: FrameType | None) -> None:
    if "deaf" not in sys.argv:
        print(f"rank {os.environ['OMPI_COMM_WORLD_RANK']} drained", flush=True)
        sys.exit(0)


signal.signal(signal.SIGUSR1, drain)
print(f"pid {os.getpid()}", flush=True)
if "fail" in sys.argv:
    sys.exit(3)
if os.environ["OMPI_COMM_WORLD_RANK"] == "0":
    print("ready http://127.0.0.1:8123", flush=True)
time.sleep(LIFETIME)
