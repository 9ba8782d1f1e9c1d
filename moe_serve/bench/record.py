"""What every benchmark writes beside its figures: machine, versions, commit, date."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("moe-serve", "torch", "transformers", "mpi4py", "openmpi", "numpy")


def record(name: str, parameters: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Any:
    """One benchmark run as JSON."""
    return {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "versions": {package: _version(package) for package in _PACKAGES},
        "parameters": dict(parameters),
        "rows": [dict(row) for row in rows],
    }


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    # Torch is loaded here, when all figures are there.
    from moe_devices.cpu import CpuDevice

    return CpuDevice().name


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
