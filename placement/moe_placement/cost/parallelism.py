"""How one worker splits a model over its devices."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallelism:
    """One worker: the devices that hold one copy of the model together and step together.

    In each pipeline stage tensor_parallel x data_parallel devices do attention, and the same
    devices are expert_parallel x expert_tensor_parallel for the routed experts.

    Attributes:
        tensor_parallel: devices that share one attention group's weights.
        data_parallel: attention groups.
        expert_tensor_parallel: devices that share one expert's weights.

    Raises:
        ValueError: the two products differ, or a degree is below 1.
    """

    tensor_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: int = 1
    expert_tensor_parallel: int = 1
    pipeline_stages: int = 1

    def __post_init__(self) -> None:
        degrees = (
            self.tensor_parallel,
            self.data_parallel,
            self.expert_parallel,
            self.expert_tensor_parallel,
            self.pipeline_stages,
        )
        if min(degrees) < 1:
            raise ValueError(f"every degree must be 1 or more, found {min(degrees)} in {self}")
        attention = self.tensor_parallel * self.data_parallel
        experts = self.expert_parallel * self.expert_tensor_parallel
        if attention != experts:
            raise ValueError(
                f"attention is on {attention} devices (tensor {self.tensor_parallel} x data "
                f"{self.data_parallel}), experts on {experts} (expert {self.expert_parallel} x "
                f"expert tensor {self.expert_tensor_parallel}); the products must be equal"
            )

    @property
    def devices_per_stage(self) -> int:
        return self.tensor_parallel * self.data_parallel

    @property
    def num_devices(self) -> int:
        return self.devices_per_stage * self.pipeline_stages
