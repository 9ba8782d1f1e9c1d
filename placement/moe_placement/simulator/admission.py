"""What a rank can serve at all."""

from math import ceil

from moe_placement.simulator.scheduler import RefusedError, SchedulerLimits, SimulatedRequest


def check_request(request: SimulatedRequest, limits: SchedulerLimits) -> None:
    """Raise RefusedError for a request that could not be finished even if it were alone."""
    if request.prompt_tokens < 1 or request.output_tokens < 1:
        raise RefusedError(
            f"request {request.request_id} has {request.prompt_tokens} prompt tokens and "
            f"{request.output_tokens} output tokens; give at least 1 of each"
        )
    num_tokens = request.prompt_tokens + request.output_tokens
    if 0 < limits.max_context < num_tokens:
        raise RefusedError(
            f"request {request.request_id} has {num_tokens} tokens, max_context is "
            f"{limits.max_context}; leave it out, or raise max_context"
        )
    # The last token is handed out and never computed, but a speculative step may overshoot it.
    num_needed = -(-(num_tokens - 2 + ceil(limits.tokens_per_step)) // limits.page_size)
    if num_needed > limits.num_pages:
        raise RefusedError(
            f"request {request.request_id} has {num_tokens} tokens in {num_needed} pages of "
            f"{limits.page_size}, the rank has {limits.num_pages}; leave it out, or give the "
            "rank more memory"
        )
