"""The event that ends a request which an engine does not take, or cannot go on with."""

from moe_serve.errors import OverloadedError, RequestError
from moe_serve.types import ErrorKind, TokenEvent


def refusal(request_id: str, error: Exception | str, num_tokens: int = 0) -> TokenEvent:
    """
    Args:
        error: a RequestError is the request's fault, any other one the engine's.
        num_tokens: that the request has had.
    """
    kind: ErrorKind = "engine"
    if isinstance(error, RequestError):
        kind = "overloaded" if isinstance(error, OverloadedError) else "request"
    return TokenEvent(
        request_id, num_tokens, None, finish_reason="error", error=str(error), error_kind=kind
    )
