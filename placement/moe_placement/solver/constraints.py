"""What a user may ask of a plan beside speed, and the sentence when it cannot be had."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.hardware.products import supported_formats
from moe_placement.plan import Plan, Role

Phases = Literal["any", "together", "apart"]
Mixing = Literal["any", "never", "always"]
RunnableBy = Literal["any", "engine"]

# What the engine computes in: one of them for the whole deployment.
ENGINE_FORMATS = ("bfloat16", "float16", "float32")


class InfeasibleError(ValueError):
    """Nothing that was asked for can be had: what is short, by how much, and what would do."""


class ConstraintError(ValueError):
    """A constraint that names what the cluster has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Limits that every plan keeps.

    Attributes:
        formats: weight formats allowed, by group name; a group that is not named may have
            bfloat16, and fp8 or int8 where its device multiplies in it.
        roles: roles allowed, by group name; a group that is not named may have any, but beside
            other devices a CPU is for experts only.
        phases: prefill and decode in the same workers, or in workers of their own.
        mixing: whether unlike groups may share one EP group.
        redundancy: most replicas beyond one of each expert, as a share of the experts.
        spread: no single failure domain may hold all replicas of an expert.
        even: replicas of an expert share its rows evenly, and all ranks have as many of them as
            the others, for engines that cannot do otherwise.
        tensor_parallel: degrees that attention may be split by.
        max_worker_devices: most devices that step together.
        max_context: tokens of the longest sequence served; 0 is the model's context.
        page_size: tokens of one page of the KV cache.
        max_tokens_per_step: of one rank.
        max_sequences: of one rank.
        activation_bytes: of one element of activations and KV cache.
        old: the plan in force, if any.
        move_bytes: most bytes of experts that may be loaded to leave it; None is no limit.
        runnable_by: "engine" asks for what this version of moe_serve serves: one weight format of
            16 or 32 bits, role both, no tensor parallelism, one EP group of one kind of device.
    """

    formats: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    roles: Mapping[str, tuple[Role, ...]] = field(default_factory=dict)
    phases: Phases = "any"
    mixing: Mixing = "any"
    redundancy: float = 0.125
    spread: bool = False
    even: bool = False
    tensor_parallel: tuple[int, ...] = (1, 2, 4, 8)
    max_worker_devices: int = 320
    max_context: int = 0
    page_size: int = 64
    memory_fraction: float = 0.9
    max_tokens_per_step: int = 8192
    max_sequences: int = 256
    activation_bytes: int = 2
    old: Plan | None = None
    move_bytes: float | None = None
    runnable_by: RunnableBy = "any"

    @property
    def is_one_worker(self) -> bool:
        """Whether the plan is one EP group: all that the engine runs, or another's file holds."""
        return self.even or self.runnable_by == "engine"

    def check(self, cluster: ClusterSpec) -> None:
        """Raise ConstraintError unless groups, roles and numbers exist."""
        names = [group.name for group in cluster.groups]
        for key, named in (("formats", self.formats), ("roles", self.roles)):
            for name in named:
                if name not in names:
                    raise ConstraintError(
                        f"{key} names the group {name!r}; the cluster has {', '.join(names)}"
                    )
        for name, roles in self.roles.items():
            for role in roles:
                if role not in get_args(Role):
                    raise ConstraintError(
                        f"roles of {name!r} has {role!r}; use {', '.join(get_args(Role))}"
                    )
        for group in cluster.groups:
            for name in self.formats.get(group.name, ()):
                if name not in supported_formats(group.device):
                    raise ConstraintError(
                        f"formats of {group.name!r} has {name!r}, which {group.device.name} cannot "
                        f"compute; use {', '.join(supported_formats(group.device))}"
                    )
        self._check_numbers()

    def _check_numbers(self) -> None:
        if not 0 < self.memory_fraction <= 1:
            raise ConstraintError(f"memory_fraction {self.memory_fraction} is not within 0..1")
        if self.redundancy < 0:
            raise ConstraintError(f"redundancy {self.redundancy} must be 0 or more")
        for name in ("page_size", "max_tokens_per_step", "max_sequences", "max_worker_devices"):
            if getattr(self, name) < 1:
                raise ConstraintError(f"{name} {getattr(self, name)} must be 1 or more")
        if self.activation_bytes not in (2, 4):
            raise ConstraintError(f"activation_bytes {self.activation_bytes} must be 2 or 4")
