"""The pace of an emulated device: what the planner says that each segment of a step takes."""

from collections.abc import Mapping
from dataclasses import dataclass

from moe_devices.work import AttentionWork, ExpertsWork, LinkWork, Pace, Work
from moe_placement.cost.coefficients import load_coefficients
from moe_placement.cost.parallelism import Parallelism
from moe_placement.cost.step_model import StepModel
from moe_placement.cost.step_shape import StepShape
from moe_placement.hardware.curves import expert_curve
from moe_placement.hardware.device import DeviceSpec, ExpertCurve
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import PoolPlan

from moe_serve.config.tree import LinkConfig


def pace_of(
    device: DeviceSpec,
    spec: ModelSpec,
    pool: PoolPlan,
    kv_format: str,
    links: Mapping[str, LinkConfig],
) -> Pace:
    """Seconds of a segment's work on one rank of a pool, by the figures that the planner uses.

    Args:
        device: what the pool's ranks are taken for.
        kv_format: of the cache.
        links: by `from>to`, those that leave the pool.

    Raises:
        HardwareError: the device cannot compute with the pool's weight format.
        FormatError: a format is not known.
    """
    num_ranks = len(pool.ranks) // pool.num_ep_groups
    num_groups = num_ranks // pool.tensor_parallel
    parallelism = Parallelism(
        tensor_parallel=pool.tensor_parallel, data_parallel=num_groups, expert_parallel=num_ranks
    )
    coefficients = load_coefficients()
    return _PlannedPace(
        spec=spec,
        steps=StepModel(spec, device, parallelism, pool.weight_format, kv_format, coefficients),
        num_groups=num_groups,
        curve=expert_curve(device, pool.weight_format),
        expert_bytes=spec.expert_bytes(pool.weight_format),
        links=links,
    )


@dataclass(frozen=True, slots=True)
class _PlannedPace:
    """Implements Pace.

    Attributes:
        steps: of the pool's ranks in one EP group as a worker of their own.
        num_groups: attention groups of that worker.
        curve: what the solver places experts by.
    """

    spec: ModelSpec
    steps: StepModel
    num_groups: int
    curve: ExpertCurve
    expert_bytes: int
    links: Mapping[str, LinkConfig]

    def __call__(self, work: Work) -> float:
        match work:
            case AttentionWork():
                return self._attention(work)
            case ExpertsWork():
                return self._experts(work)
            case LinkWork():
                return self._links(work)

    def _attention(self, work: AttentionWork) -> float:
        """The step's attention side, with its own exchange as the planner has it, spread evenly
        over the layers and the output head."""
        num_parts = self.spec.num_layers + 1
        end = num_parts if work.end_layer is None else work.end_layer
        parts = self.steps.parts(_shape(work, self.num_groups))
        whole = sum(parts.values()) - parts.get("experts", 0.0)
        return whole * (end - work.first_layer) / num_parts

    def _experts(self, work: ExpertsWork) -> float:
        if not work.rows_by_slot:
            return 0.0
        num_flops = 2.0 * self.spec.mlp.expert * work.num_rows
        return self.curve.seconds(work.num_active * self.expert_bytes, num_flops)

    def _links(self, work: LinkWork) -> float:
        """Links carry at the same time."""
        seconds = (
            self.links[link].latency + num_bytes / self.links[link].bandwidth
            for link, num_bytes in work.bytes_by_link.items()
        )
        return max(seconds, default=0.0)


def _shape(work: AttentionWork, num_groups: int) -> StepShape:
    """The worker's step in which every attention group does as much as this one."""
    return StepShape(
        prefill_tokens=work.num_prompt_tokens * num_groups,
        prefill_context=work.prompt_context / max(1, work.num_prompt_tokens),
        decode_sequences=work.num_decoding * num_groups,
        decode_context=work.decode_context / max(1, work.num_decoding),
    )
