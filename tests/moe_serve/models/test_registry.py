"""The architectures that the models run are those that the planner prices."""

from moe_placement.model.architectures import ARCHITECTURES

from moe_serve.models.registry import FAMILIES


def test_what_is_priced_is_what_is_served() -> None:
    assert set(ARCHITECTURES) == set(FAMILIES)
