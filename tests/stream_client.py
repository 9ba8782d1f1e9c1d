"""Streams from a server that only one host reaches: prints a line when they are in their middle,
and another with their tokens at the end."""

import json
import subprocess
import sys
from pathlib import Path

from live_server import ENVIRONMENT
from network_hosts import Hosts
from world_runs import begin, ended

_HERE = Path(__file__)


def start(host: str, url: str) -> "subprocess.Popen[str]":
    """This client on a host; returns when its streams are in their middle."""
    # Beside this file there are folders that are called as the packages are.
    environment = ENVIRONMENT | {"PYTHONPATH": str(_HERE.parents[1])}
    command = Hosts.on(host, sys.executable, str(_HERE), url)
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert client.stdout is not None
    if client.stdout.readline() != "begun\n":
        client.communicate()
        raise AssertionError(f"no streams from {url}")
    return client


if __name__ == "__main__":
    streams = begin(sys.argv[1])
    print("begun", flush=True)
    print(json.dumps(ended(streams)), flush=True)
