"""`moe_bench`: benchmarks that print a table and write JSON."""

import argparse
import os
import sys
from collections.abc import Sequence

from moe_serve.errors import MoeServeError


def main(arguments: Sequence[str] | None = None) -> int:
    # Torch loads torch-npu, where that is installed, and dies where there is no CANN.
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    from moe_serve.bench import dispatch, offline, placement, pools, simulator, slices

    parser = argparse.ArgumentParser(prog="moe_bench", description="Benchmarks of this engine.")
    commands = parser.add_subparsers(required=True)
    modules = (
        ("offline", offline),
        ("dispatch", dispatch),
        ("placement", placement),
        ("pools", pools),
        ("simulator", simulator),
        ("slices", slices),
    )
    for name, module in modules:
        command = commands.add_parser(name, help=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except MoeServeError as error:
        print(f"moe_bench: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
