"""Working space and cache of models whose layers differ."""

from dataclasses import replace

import pytest
from moe_placement.equal_split import equal_split
from moe_placement.memory.rank_memory import rank_memory
from moe_placement.memory.working_space import expected_rows, working_space
from moe_placement.model.catalogue import find_model
from moe_placement.plan import LayerPlan, Plan, PoolPlan

HYBRID = find_model("qwen3_5_397b_a17b")
POOL = PoolPlan("all", "cuda", tuple(range(8)), "both", "fp8")
PLAN = equal_split("hybrid", HYBRID.num_experts, HYBRID.moe_layers, (POOL,))


def space(plan: Plan = PLAN, sequences: int = 32, *, stateless: bool = False) -> int:
    spec = HYBRID
    if stateless:
        layers = ((replace(spec, state_elements=0), count) for spec, count in spec.attention_layers)
        spec = replace(spec, attention_layers=tuple(layers))
    return working_space(spec, plan, 0, 2, 2048, sequences, max_length=8192)


@pytest.mark.parametrize("sequences", [0, 1, 32])
def test_each_sequence_keeps_its_states(sequences: int) -> None:
    states = sequences * 4 * HYBRID.state_elements
    assert space(sequences=sequences) - space(sequences=sequences, stateless=True) == states


def test_ranks_share_states_as_they_share_heads() -> None:
    split = replace(PLAN, pools=(replace(POOL, tensor_parallel=4),))
    assert space(split) - space(split, stateless=True) == 32 * HYBRID.state_elements


def test_a_rank_of_experts_keeps_no_states() -> None:
    experts = replace(PLAN, pools=(replace(POOL, role="experts"),))
    assert space(experts) == space(experts, stateless=True)


def test_the_widest_layer_counts_wherever_it_stands() -> None:
    backwards = replace(HYBRID, attention_layers=HYBRID.attention_layers[::-1])
    assert working_space(backwards, PLAN, 0, 2, 2048, 32, max_length=8192) == space()
    linear = HYBRID.attention_layers[0][0]
    wider = replace(linear, activations=1 << 24)
    grown = replace(HYBRID, attention_layers=((wider, 45), HYBRID.attention_layers[1]))
    hidden, states = 2 * 2048 * 3 * HYBRID.hidden_size, 32 * 4 * HYBRID.state_elements
    total = working_space(grown, PLAN, 0, 2, 2048, 32, max_length=8192)
    assert total == hidden + states + 2 * 2048 * wider.activations


def test_linear_layers_take_no_pages() -> None:
    memory = rank_memory(
        HYBRID,
        PLAN,
        0,
        max_tokens_per_step=2048,
        max_sequences=32,
        page_size=16,
        num_pages=None,
        device_bytes=141 * 10**9,
        memory_fraction=0.9,
        max_context=8192,
    )
    assert memory.page_bytes == 16 * 30_720
    assert memory.fits
    assert memory.working_space > 32 * 4 * HYBRID.state_elements


def test_a_rank_has_room_for_its_fullest_layer() -> None:
    first = min(PLAN.layers)
    slots, weights = PLAN.layers[first].slots, PLAN.layers[first].weights
    doubled = LayerPlan(
        (slots[0] + slots[1], (), *slots[2:]), (weights[0] + weights[1], (), *weights[2:])
    )
    plan = replace(PLAN, layers={**PLAN.layers, first: doubled})
    even, fuller = (expected_rows(HYBRID, each, 0, 1024) for each in (PLAN, plan))
    assert even == 1024 * HYBRID.num_experts_per_token and fuller == 2 * even
    assert space(plan) > space()
