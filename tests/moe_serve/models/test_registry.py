"""The architectures that the models run are named as served, and the planner prices them."""

from moe_placement.model.architectures import ARCHITECTURES

from moe_serve.config.unserved import SERVED_ARCHITECTURES, unserved_architecture
from moe_serve.models.registry import FAMILIES


def test_what_is_served_is_priced() -> None:
    assert set(FAMILIES) == set(SERVED_ARCHITECTURES) < set(ARCHITECTURES)


def test_a_model_for_planning_alone_is_refused_by_name() -> None:
    assert not list(unserved_architecture("DeepseekV3ForCausalLM"))
    (sentence,) = unserved_architecture("GptOssForCausalLM")
    assert sentence.startswith("model: this version plans for GptOssForCausalLM and does not serve")
    assert all(name in sentence for name in FAMILIES)
