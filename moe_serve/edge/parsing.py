"""HTTP bodies to checked request bodies."""

from collections.abc import Sequence
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from moe_serve.edge.bodies import Body
from moe_serve.edge.errors import BodyTooLargeError
from moe_serve.errors import RequestError

BodyType = TypeVar("BodyType", bound=Body)


async def read_body(request: Request, kind: type[BodyType], max_bytes: int) -> BodyType:
    """The request's JSON as `kind`.

    Raises:
        BodyTooLargeError: over `max_bytes`; no more than that is ever held.
        RequestError: not JSON, a wrong type, or a value out of range; names the field.
    """
    try:
        return kind.model_validate_json(await read_bytes(request, max_bytes))
    except ValidationError as error:
        raise _refusal(error) from error


async def read_bytes(request: Request, max_bytes: int) -> bytes:
    """The request's body; BodyTooLargeError over `max_bytes`."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise BodyTooLargeError(f"the body has {announced} bytes, the limit is {max_bytes}")
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > max_bytes:
            raise BodyTooLargeError(f"the body has more than the limit of {max_bytes} bytes")
    return bytes(content)


def _refusal(error: ValidationError) -> RequestError:
    problem = error.errors(include_url=False, include_context=False)[0]
    if not problem["loc"]:
        return RequestError(f"the body is not a valid JSON object: {problem['msg']}")
    return RequestError(f"{_path(problem['loc'])}: {problem['msg']}", str(problem["loc"][0]))


def _path(location: Sequence[int | str]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")
