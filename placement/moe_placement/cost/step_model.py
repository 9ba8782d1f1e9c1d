"""The step cost model: seconds of one step of a worker of like devices, by mechanism."""

from dataclasses import replace

from moe_placement.cost.coefficients import Coefficients
from moe_placement.cost.parallelism import Parallelism
from moe_placement.cost.price import StepPrice, experts_touched, step_parts, step_price
from moe_placement.cost.step_shape import StepShape
from moe_placement.cost.terms import step_terms
from moe_placement.cost.work import step_work
from moe_placement.hardware.curves import measured_curve
from moe_placement.hardware.device import DeviceSpec, ExpertCurve
from moe_placement.model.spec import ModelSpec


class StepModel:
    """A StepTimer for one model on one kind of device.

    A worker of several pipeline stages keeps as many micro-batches under way as it has stages;
    a step is one pass of each, so each holds that share of the step's tokens. Where the device's
    experts were measured in the weights' format, their seconds are by that curve.

    Raises:
        FormatError: a format is not known.
        HardwareError: the device cannot compute with these weights.
    """

    def __init__(
        self,
        spec: ModelSpec,
        device: DeviceSpec,
        parallelism: Parallelism,
        weight_format: str,
        kv_format: str,
        coefficients: Coefficients,
        *,
        engine: str = "",
    ) -> None:
        work = step_work(spec, parallelism, weight_format, kv_format)
        terms = step_terms(spec, device, parallelism, weight_format, kv_format, engine)
        self.price: StepPrice = step_price(work, terms, coefficients)
        self._work = work
        self._measured = measured_curve(device, weight_format)
        self._stages = parallelism.pipeline_stages

    def seconds(self, shape: StepShape) -> float:
        """Seconds of one step; 0 for a step without tokens."""
        return sum(self.parts(shape).values())

    def parts(self, shape: StepShape) -> dict[str, float]:
        """The same by part, which sum to the whole; empty for a step without tokens."""
        if not shape.num_tokens:
            return {}
        shape = self._micro_batch(shape)
        parts = step_parts(self.price, shape)
        if self._measured is not None:
            parts["experts"] = self._experts(self._measured, shape.num_tokens)
        return parts

    def _experts(self, curve: ExpertCurve, tokens: float) -> float:
        """Padding is in the measured times already."""
        num_bytes = experts_touched(self.price, tokens) * self._work.expert_bytes
        rows = tokens * self.price.expert_rows * self.price.fullest_rows
        return self._work.moe_layers * curve.seconds(num_bytes, rows * self._work.expert_flops)

    def _micro_batch(self, shape: StepShape) -> StepShape:
        if self._stages == 1:
            return shape
        return replace(
            shape,
            prefill_tokens=shape.prefill_tokens / self._stages,
            decode_sequences=shape.decode_sequences / self._stages,
        )
