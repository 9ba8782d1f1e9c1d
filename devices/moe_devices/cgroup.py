"""What the kernel grants this process: memory, cores and processor time, cgroup v1 or v2.

A container may show the whole host in /proc/meminfo and /proc/cpuinfo; its limits are here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """Bytes granted by one control group, and how many of them are in use."""

    total: int
    used: int


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """The control groups of this process.

    Attributes:
        root: where the cgroup file systems are mounted.
        membership: the text of /proc/self/cgroup.
    """

    root: Path
    membership: str

    @classmethod
    def mine(cls) -> "ControlGroup":
        membership = Path("/proc/self/cgroup")
        text = membership.read_text() if membership.exists() else ""
        return cls(Path("/sys/fs/cgroup"), text)

    def memory_limits(self) -> tuple[MemoryLimit, ...]:
        """Every limit on the way from this process's group up to the root."""
        v2 = self._limits("", "memory.max", "memory.current", "inactive_file")
        v1 = self._limits(
            "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        )
        return (*v2, *v1)

    def logical_cores(self) -> tuple[int, ...]:
        """Core numbers that this process may be bound to; empty where nothing says."""
        for controller, file in (
            ("", "cpuset.cpus.effective"),
            ("cpuset", "cpuset.effective_cpus"),
            ("cpuset", "cpuset.cpus"),
        ):
            for folder in self._folders(controller):
                if cores := parse_core_list(_read(folder / file)):
                    return cores
        return ()

    def processor_quota(self) -> float | None:
        """Cores' worth of processor time; None is unlimited."""
        shares = []
        for folder in self._folders(""):
            shares.append(_read(folder / "cpu.max").split())
        for folder in self._folders("cpu"):
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
            shares.append([quota, period])
        granted = [
            int(share[0]) / int(share[1])
            for share in shares
            if len(share) == 2 and share[0].isdigit() and share[1].isdigit()
        ]
        return min(granted, default=None)

    def processor_folder(self) -> Path:
        """This process's own folder of the controller that shares out processor time."""
        return self._own_folder("cpu")

    def memory_folder(self) -> Path:
        """This process's own folder of the controller that counts memory."""
        return self._own_folder("memory")

    def _limits(
        self, controller: str, limit_file: str, used_file: str, reclaimable: str
    ) -> Iterator[MemoryLimit]:
        for folder in self._folders(controller):
            limit, used = _read(folder / limit_file), _read(folder / used_file)
            if limit.isdigit() and used.isdigit() and int(limit) < _UNLIMITED:
                cached = dict(
                    line.split() for line in _read(folder / "memory.stat").splitlines()
                ).get(reclaimable, "0")
                yield MemoryLimit(int(limit), max(0, int(used) - int(cached)))

    def _own_folder(self, controller: str) -> Path:
        mounted = controller if (self.root / controller).is_dir() else ""
        existing = (folder for folder in self._folders(mounted) if folder.is_dir())
        return next(existing, self.root / mounted)

    def _folders(self, controller: str) -> Iterator[Path]:
        """This process's folder under a controller ("" is v2's single tree), then its parents'."""
        mount = self.root / controller
        folder = mount / self._path(controller).strip("/")
        while folder != mount:
            yield folder
            folder = folder.parent
        yield mount

    def _path(self, controller: str) -> str:
        for line in self.membership.splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(",") and ".." not in path:
                return path
        return ""


def parse_core_list(text: str) -> tuple[int, ...]:
    """The kernel's notation: "0-2,5" -> (0, 1, 2, 5)."""
    cores: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cores.extend(range(int(first), int(last or first) + 1))
    return tuple(cores)


def _read(file: Path) -> str:
    """The file's text, or nothing where it does not exist or may not be read."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
