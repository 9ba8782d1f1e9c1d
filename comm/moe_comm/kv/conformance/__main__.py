"""`python -m moe_comm.kv.conformance HOST:PORT`: does an engine's KV endpoint keep the format?"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from moe_comm.kv.conformance.suite import Check, suite
from moe_comm.kv.frames import FrameError


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m moe_comm.kv.conformance")
    parser.add_argument("addresses", nargs="+", metavar="HOST:PORT", help="one for each rank")
    parser.add_argument("--secret-file", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        checks = suite(options.addresses, options.secret_file.read_bytes())
    except (OSError, FrameError) as error:
        sys.exit(f"{' '.join(options.addresses)}: {error}")
    num_passed = sum(_passes(check) for check in checks)
    print(f"{num_passed} of {len(checks)} checks passed")
    sys.exit(num_passed != len(checks))


def _passes(check: Check) -> bool:
    fault = check.fault()
    print(f"{'ok    ' if fault is None else 'FAILED'} {check.name}{f': {fault}' if fault else ''}")
    return fault is None


if __name__ == "__main__":
    main()
