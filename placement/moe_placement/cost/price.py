"""A step's price: work, device and coefficients made into a few seconds-per-unit numbers.

All arithmetic is of operators alone, without a branch, so that a fit may hand in arrays of one
number per measured row where a planner hands in floats.
"""

from dataclasses import dataclass

from moe_placement.cost.coefficients import Coefficients
from moe_placement.cost.step_shape import StepShape
from moe_placement.cost.terms import StepTerms, of_engine
from moe_placement.cost.work import StepWork


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPrice:
    """Seconds of a step's parts by unit of its shape; tokens are of the whole worker.

    Attributes:
        dense_read: of the weights that all tokens use.
        dense_token: of a token's products with them.
        logits: of a decoded token's products with the output head.
        token: of a token's small kernels.
        popularity_shape: of the gamma distribution by which experts are chosen.
        chosen_share: part of all experts that one token chooses, by that shape.
        experts_read: of one expert in every layer.
        experts: that the device holds in one layer.
        expert_rows: that one token gives the device in one layer.
        expert_tile: rows of padding for each expert that is touched.
        expert_row: of one row in every layer, as the fullest device has it.
        fullest_rows: rows of the fullest device over the mean, from step to step.
        state: of reading and writing the recurrent states of one sequence.
        far_read: of one token of one decoding sequence's context.
        far_decode: of one decoded token's products with one token of context.
        far_prefill: the same of a prompt's token.
        near_reach: tokens that near layers attend to at most.
        exchange_fixed: of all messages' latencies.
        exchange_token: of one token's bytes in them.
        kernels: of all kernels' least times.
        sequence: of host work for one sequence.
    """

    dense_overlap: float
    experts_overlap: float
    dense_read: float
    dense_token: float
    logits: float
    token: float
    popularity_shape: float
    chosen_share: float
    experts_read: float
    experts: float
    expert_rows: float
    expert_tile: float
    expert_row: float
    fullest_rows: float
    state: float
    far_read: float
    far_decode: float
    far_prefill: float
    near_reach: float
    near_read: float
    near_decode: float
    near_prefill: float
    exchange_fixed: float
    exchange_token: float
    kernels: float
    sequence: float


def step_price(work: StepWork, terms: StepTerms, coefficients: Coefficients) -> StepPrice:
    """Price one device's work."""
    c = coefficients
    pace = _mix(c.blackwell_compute, terms.newer) * (
        terms.vllm + terms.sglang * c.compute_sglang + terms.trtllm * c.compute_trtllm
    )
    kernel = of_engine(terms, c, "kernel") * _mix(c.hopper_kernels, 1 - terms.newer)
    return StepPrice(
        dense_overlap=c.dense_overlap,
        experts_overlap=c.expert_overlap,
        kernels=work.kernels * kernel,
        sequence=of_engine(terms, c, "sequence") / work.data_parallel,
        **_dense(work, terms, c, pace),
        **_experts(work, terms, c, pace),
        **_cache(work, terms, c, pace),
        **_exchanges(work, terms, c),
    )


def _dense(work: StepWork, terms: StepTerms, c: Coefficients, pace: float) -> dict[str, float]:
    rate = terms.dense_peak * c.dense_compute * pace * work.data_parallel
    traffic = work.elements * c.token_traffic / work.data_parallel
    return {
        "dense_read": work.dense_bytes / (terms.bandwidth * c.weight_read),
        "dense_token": work.dense_flops / rate,
        "logits": work.logits_flops / rate,
        "token": (traffic + work.row_elements * c.row_traffic) / terms.bandwidth,
    }


def _experts(work: StepWork, terms: StepTerms, c: Coefficients, pace: float) -> dict[str, float]:
    fullest = 1 + c.group_imbalance * (1 - 1 / work.expert_parallel)
    bandwidth = terms.bandwidth * c.expert_read / _mix(c.wide_trtllm, terms.trtllm * terms.wide)
    compute = _mix(c.narrow_compute, terms.narrow) * _mix(c.wide_compute, terms.wide)
    rate = terms.expert_peak * c.expert_compute * pace * compute
    return {
        "popularity_shape": c.popularity_shape,
        "chosen_share": work.chosen_share / c.popularity_shape,
        "experts_read": work.moe_layers * work.expert_bytes / bandwidth,
        "experts": work.experts,
        "expert_rows": work.expert_rows,
        "expert_tile": c.expert_tile,
        "expert_row": work.moe_layers * work.expert_flops * fullest / rate,
        "fullest_rows": fullest,
    }


def _cache(work: StepWork, terms: StepTerms, c: Coefficients, pace: float) -> dict[str, float]:
    read = terms.bandwidth * c.cache_read * work.data_parallel
    prefill = terms.attention_peak * c.attention_compute * pace * work.data_parallel
    decode = terms.decode_peak * c.attention_compute * pace * work.data_parallel
    return {
        "state": work.state_bytes / read,
        "far_read": work.far_cache / read,
        "far_decode": work.far_decode / decode,
        "far_prefill": work.far_prefill / prefill,
        "near_reach": work.near_reach,
        "near_read": work.near_cache / read,
        "near_decode": work.near_decode / decode,
        "near_prefill": work.near_prefill / prefill,
    }


def _exchanges(work: StepWork, terms: StepTerms, c: Coefficients) -> dict[str, float]:
    reducing, meeting = work.tensor_parallel, work.tensor_parallel * work.data_parallel
    latency = c.exchange_latency * (reducing / 2) ** c.exchange_growth * work.reduces
    latency = latency + c.exchange_latency * (meeting / 2) ** c.exchange_growth * work.exchanges
    sent = work.reduce_bytes * terms.reduce_seconds + work.exchange_bytes * terms.exchange_seconds
    return {
        "exchange_fixed": latency,
        "exchange_token": sent / c.exchange_bandwidth / work.data_parallel,
    }


def _mix(ratio: float, share: float) -> float:
    """A ratio that holds for a share, 0 or 1 or what an unknown engine has of one."""
    return 1 + share * (ratio - 1)


def step_parts(price: StepPrice, shape: StepShape) -> dict[str, float]:
    """Seconds of a step by part; they do not overlap and sum to the step.

    What attention groups do for themselves lasts as long as in the fullest of them.
    """
    prompt, sequences = shape.prefill_tokens, shape.decode_sequences
    decoded = sequences * shape.decode_tokens_per_sequence
    tokens = prompt + decoded
    fullest = prompt * shape.prefill_imbalance + decoded
    dense = _overlap(
        price.dense_read, fullest * price.dense_token + decoded * price.logits, price.dense_overlap
    )
    touched = experts_touched(price, tokens)
    rows = tokens * price.expert_rows + touched * price.expert_tile
    experts = _overlap(touched * price.experts_read, rows * price.expert_row, price.experts_overlap)
    return {
        "dense": dense,
        "experts": experts,
        "attention": _attention(price, shape, decoded),
        "elements": fullest * price.token,
        "exchange": price.exchange_fixed + fullest * price.exchange_token,
        "kernels": price.kernels,
        "host": sequences * price.sequence,
    }


def experts_touched(price: StepPrice, tokens: float) -> float:
    """Experts of a layer on the device that at least one of the worker's tokens chooses."""
    idle = (1 + tokens * price.chosen_share) ** -price.popularity_shape
    touched: float = price.experts * (1 - idle)
    return touched


def _attention(price: StepPrice, shape: StepShape, decoded: float) -> float:
    sequences, context = shape.decode_sequences, shape.decode_context
    near = _least(context, price.near_reach)
    read = sequences * (context * price.far_read + near * price.near_read + price.state)
    compute = decoded * (context * price.far_decode + near * price.near_decode)
    before = shape.prefill_context
    prefill = (shape.prefill_tokens * shape.prefill_imbalance) * (
        before * price.far_prefill + _least(before, price.near_reach) * price.near_prefill
    )
    return _overlap(read, compute, price.dense_overlap) + prefill


def _least(first: float, second: float) -> float:
    return (first + second - abs(first - second)) / 2


def _overlap(first: float, second: float, exponent: float) -> float:
    """Seconds of two that overlap: a smooth maximum, their sum at exponent 1."""
    both: float = (first**exponent + second**exponent) ** (1 / exponent)
    return both
