"""Streams from a server that only one host reaches: prints a line when they are in their middle,
and another with their tokens at the end."""

import json
import sys

from world_runs import begin, ended

if __name__ == "__main__":
    streams = begin(sys.argv[1])
    print("begun", flush=True)
    print(json.dumps(ended(streams)), flush=True)
