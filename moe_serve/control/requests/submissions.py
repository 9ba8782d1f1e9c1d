"""What each rank gets of a request, where one may compute its prompt for another."""

from collections.abc import Sequence

from moe_serve.control.requests.router import Route
from moe_serve.messages import Command
from moe_serve.types import Request, SamplingParams


def submissions(requests: Sequence[Request], route: Route) -> dict[int, Command]:
    """Commands by rank, not yet numbered.

    Args:
        requests: the choices of one request, each with the route's `prefill_rank`.
    """
    commands = {route.rank: Command(wake=0, submit=tuple(requests))}
    if route.prefill_rank is not None:
        prompts = [_prompt_alone(request, route.rank) for request in requests]
        commands[route.prefill_rank] = Command(wake=0, submit=tuple(prompts))
    return commands


def _prompt_alone(request: Request, decode_rank: int) -> Request:
    """The part that a rank which prefills has: the last token's logits are not its business."""
    return Request(
        request_id=request.request_id,
        prompt_ids=request.prompt_ids[:-1],
        sampling=SamplingParams(max_tokens=1),
        tenant=request.tenant,
        decode_rank=decode_rank,
    )
