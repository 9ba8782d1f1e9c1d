"""Ranks of the pools benchmark: started by mpirun for one config, and what they measured."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec

from moe_serve.bench.pool_worker import PoolJob, RankFigures
from moe_serve.control.meeting.mpirun import mpirun_command, mpirun_environment
from moe_serve.errors import ConfigError

_RUN_SECONDS = 900.0


def run_ranks(job: PoolJob, num_ranks: int) -> list[RankFigures]:
    """By rank.

    Raises:
        ConfigError: the ranks did not end well, or not in time.
    """
    name = Path(job.config).stem
    words = [sys.executable, "-m", "moe_serve.bench.pool_worker", msgspec.json.encode(job).decode()]
    print(f"running {name} ...", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            mpirun_command(num_ranks, words),
            stdout=subprocess.PIPE,
            text=True,
            env=mpirun_environment(),
            timeout=_RUN_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"the ranks of {name} did not end in {_RUN_SECONDS:g} s") from None
    if done.returncode != 0:
        raise ConfigError(f"the ranks of {name} ended with exit code {done.returncode}")
    return msgspec.convert(json.loads(done.stdout.strip().splitlines()[-1]), list[RankFigures])
