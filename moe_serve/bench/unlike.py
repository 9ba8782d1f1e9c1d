"""Three unlike ranks for the pools benchmark: emulated, or real ones under processor quotas."""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from moe_devices.errors import DeviceError
from moe_devices.quota import enter, processor_quota
from moe_placement.hardware.device import DeviceSpec, ExpertCurve, Plane
from moe_placement.hardware.device_file import device_text

from moe_serve.bench.pool_configs import BenchPool, Workload
from moe_serve.demo import write_checkpoint
from moe_serve.demo_config import demo_config
from moe_serve.errors import ConfigError

_SPEEDS = {"fast": 4.0, "middle": 2.0, "slow": 1.0}
_CALIBRATE_SECONDS = 12
# Experts take most of a step, as in large models; attention is small beside them.
_EMULATED_MODEL = {"num_hidden_layers": 4}
_REAL_MODEL = {
    "hidden_size": 512,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 24,
    "num_hidden_layers": 4,
    "intermediate_size": 512,
    "n_group": 1,
    "topk_group": 1,
}


@dataclass(frozen=True, slots=True)
class Unlike:
    """Attributes:
    quotas: folder of the control group of each rank; empty where there are none.
    """

    title: str
    pools: tuple[BenchPool, ...]
    work: Workload
    quotas: tuple[str, ...] = ()


@contextmanager
def emulated(options: argparse.Namespace, folder: Path) -> Iterator[Unlike]:
    """Devices whose experts have declared speeds of 4 : 2 : 1, and nothing else that counts."""
    model = folder / "model"
    write_checkpoint(model, demo_config() | _EMULATED_MODEL)
    pools = tuple(
        BenchPool(
            name=name,
            device="emulated",
            hardware=declare_device(folder / f"{name}.yaml", speed),
            role="both" if name == "fast" else "experts",
        )
        for name, speed in _SPEEDS.items()
    )
    work = Workload(
        model=model,
        num_sequences=options.tokens,
        num_steps=options.steps,
        time_scale=options.time_scale,
    )
    yield Unlike("declared speeds 4 : 2 : 1, emulated", pools, work)


@contextmanager
def under_quotas(options: argparse.Namespace, folder: Path) -> Iterator[Unlike]:
    """Real ranks with unequal shares of a core; the planner knows what was measured of each.

    Raises:
        ConfigError: this process may not make control groups.
    """
    model = folder / "model"
    write_checkpoint(model, demo_config() | _REAL_MODEL)
    with ExitStack() as stack:
        try:
            groups = [
                stack.enter_context(processor_quota(f"moe-bench-{name}", cores))
                for name, cores in zip(_SPEEDS, options.quotas, strict=True)
            ]
        except DeviceError as error:
            raise ConfigError(f"--tables measured: {error}") from error
        files = [folder / f"{name}.yaml" for name in _SPEEDS]
        hardware = _calibrate(dict(zip(files, groups, strict=True)))
        pools = tuple(
            BenchPool(
                name=path.stem,
                device="cpu",
                hardware=path,
                role="both" if path.stem == "fast" else "experts",
            )
            for path in hardware
        )
        work = Workload(model=model, num_sequences=options.tokens, num_steps=options.steps)
        shares = " : ".join(f"{cores:g}" for cores in options.quotas)
        yield Unlike(f"processor quotas of {shares} cores", pools, work, tuple(map(str, groups)))


def declare_device(path: Path, speed: float, flops: float = 1e13, bandwidth: float = 1e12) -> Path:
    """Experts cost 2 ns a FLOP and 4 ns a byte at speed 1; all else is fast unless said otherwise.

    Args:
        flops, bandwidth: per second, of all that is not experts.
    """
    curve = ExpertCurve(
        (
            Plane(fixed=1e-5, per_byte=4e-9 / speed, per_flop=0.0),
            Plane(fixed=1e-5, per_byte=0.0, per_flop=2e-9 / speed),
        )
    )
    device = DeviceSpec(
        name=path.stem,
        kind="cuda",
        flops={"float32": flops},
        memory_bytes=1 << 30,
        bandwidth=bandwidth,
        link_bandwidth=1e11,
        link_latency=1e-6,
        network_bandwidth=1e10,
        network_latency=1e-5,
        curves={"float32": curve},
    )
    path.write_text(device_text(device))
    return path


def _calibrate(groups: Mapping[Path, Path]) -> Sequence[Path]:
    """Measure what a rank in each control group has, with the model's own shapes; all at once, as
    the ranks will compute: they share cores and caches.

    Args:
        groups: by the file that is to say it.
    """
    print("calibrating all ranks at once ...", file=sys.stderr, flush=True)
    with ExitStack() as stack:
        started = {
            path: stack.enter_context(
                subprocess.Popen(
                    _calibrate_command(path),
                    preexec_fn=partial(enter, group),
                    stdout=subprocess.DEVNULL,
                )
            )
            for path, group in groups.items()
        }
        for path, process in started.items():
            if code := process.wait():
                raise ConfigError(f"moe_plan calibrate for {path.stem} ended with {code}")
    return list(groups)


def _calibrate_command(path: Path) -> Sequence[str]:
    shapes = {
        "--hidden": _REAL_MODEL["hidden_size"],
        "--expert-width": _REAL_MODEL["moe_intermediate_size"],
        "--threads": 1,
        "--formats": "float32",
        "--seconds": _CALIBRATE_SECONDS,
        "--output": path,
    }
    words = [f"{word}" for pair in shapes.items() for word in pair]
    return [sys.executable, "-m", "moe_placement.cli.main", "calibrate", *words]
