"""What one part of a worker costs: its own step model, and a curve for the experts it holds."""

from dataclasses import dataclass

from moe_placement.cost.coefficients import Coefficients
from moe_placement.cost.parallelism import Parallelism
from moe_placement.cost.price import StepPrice
from moe_placement.cost.step_model import StepModel
from moe_placement.hardware.cluster import ClusterSpec, NodeGroup
from moe_placement.hardware.curves import measured_curve
from moe_placement.hardware.device import DeviceSpec, ExpertCurve, Plane
from moe_placement.model.spec import ModelSpec
from moe_placement.solver.workers.worker import Part

_CACHE_FORMATS = {2: "bfloat16", 4: "float32"}
# Ratios of computing to reading at which planes touch the smooth maximum of the two.
_TOUCHING = (0.0, 0.75, 4 / 3, float("inf"))


@dataclass(frozen=True, slots=True)
class CostContext:
    """What all costs of one search have in common."""

    spec: ModelSpec
    cluster: ClusterSpec
    coefficients: Coefficients
    activation_bytes: int = 2

    def group(self, part: Part) -> NodeGroup:
        return self.cluster.groups[part.group]

    def device(self, part: Part) -> DeviceSpec:
        return self.group(part).device

    def step_model(self, part: Part) -> StepModel:
        """The part as if it were a worker of its own: it serves as one where nothing is mixed."""
        groups = part.num_devices // part.tensor_parallel
        parallelism = Parallelism(
            tensor_parallel=part.tensor_parallel,
            data_parallel=groups,
            expert_parallel=part.num_devices,
        )
        return self._model(part, parallelism)

    def expert_curve(self, part: Part) -> ExpertCurve:
        """One rank's experts: measured where the device has a curve for the format, else the
        step model's own price of reading and multiplying them, without its allowance for uneven
        ranks, which a placement replaces."""
        measured = measured_curve(self.device(part), part.weight_format)
        if measured is not None:
            return measured
        return _priced_curve(self.spec, part, self._model(part, Parallelism()).price)

    def popularity_shape(self, part: Part) -> float:
        """Of the gamma distribution by which the step model takes experts to be chosen."""
        return self._model(part, Parallelism()).price.popularity_shape

    def fullest_rows(self, part: Part, num_ranks: int) -> float:
        """What the step model allows for the rows of the fullest of so many ranks over the mean,
        from step to step."""
        split = Parallelism(data_parallel=num_ranks, expert_parallel=num_ranks)
        return self._model(part, split).price.fullest_rows

    def _model(self, part: Part, parallelism: Parallelism) -> StepModel:
        return StepModel(
            self.spec,
            self.device(part),
            parallelism,
            part.weight_format,
            _CACHE_FORMATS[self.activation_bytes],
            self.coefficients,
        )


def _priced_curve(spec: ModelSpec, part: Part, price: StepPrice) -> ExpertCurve:
    """Planes that touch the p-norm of reading and computing, a convex function, from below."""
    num_layers = len(spec.moe_layers)
    read = price.experts_read / num_layers
    row = price.expert_row / num_layers
    num_bytes = spec.expert_bytes(part.weight_format)
    planes = []
    for ratio in _TOUCHING:
        by_read, by_row = _tangent(ratio, price.experts_overlap)
        per_expert = by_read * read + by_row * row * price.expert_tile
        planes.append(Plane(0.0, per_expert / num_bytes, by_row * row / (2 * spec.mlp.expert)))
    return ExpertCurve(tuple(planes))


def _tangent(ratio: float, exponent: float) -> tuple[float, float]:
    """Gradient of (a^p + b^p)^(1/p) where b / a is `ratio`."""
    if ratio == float("inf"):
        return 0.0, 1.0
    norm: float = (1 + ratio**exponent) ** (1 / exponent)
    return (1 / norm) ** (exponent - 1), (ratio / norm) ** (exponent - 1)
