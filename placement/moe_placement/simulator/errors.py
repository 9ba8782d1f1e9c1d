"""What a user of the simulator can get wrong."""


class SimulationError(ValueError):
    """Settings that contradict each other, or a scheduler that is missing or cannot do it."""
