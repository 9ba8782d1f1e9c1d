"""Routes that start no generation: models, plan, tokenizer, health and metrics."""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from moe_serve.edge.answering import json_response
from moe_serve.edge.bodies import DetokenizeBody, TokenizeBody
from moe_serve.edge.parsing import read_body
from moe_serve.edge.sampling import check_ids
from moe_serve.edge.service import Service, Tenant
from moe_serve.errors import RequestError

_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class InformationRoutes:
    def __init__(self, service: Service, plan: Callable[[], Mapping[str, Any]]) -> None:
        self._service = service
        self._plan = plan

    async def models(self, _request: Request) -> Response:
        data = [self._model(tenant) for tenant in self._service.tenants]
        return json_response({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        return json_response(self._model(self._service.tenant(request.path_params["name"])))

    async def plan(self, _request: Request) -> Response:
        """Where experts are, why, under which load, and what moves."""
        return json_response(dict(self._plan()))

    async def tokenize(self, request: Request) -> Response:
        body = await read_body(request, TokenizeBody, self._service.max_body_bytes)
        tenant = self._service.tenant(body.model)
        tokens = await self._tokens(body, tenant)
        most = tenant.model.context_length
        return json_response({"tokens": tokens, "count": len(tokens), "max_model_len": most})

    async def detokenize(self, request: Request) -> Response:
        body = await read_body(request, DetokenizeBody, self._service.max_body_bytes)
        tenant = self._service.tenant(body.model)
        tokens = check_ids(body.tokens, tenant.model.vocab_size, "tokens")
        return json_response({"prompt": tenant.tokenizer.decode(tokens)})

    async def health(self, _request: Request) -> Response:
        """Alive: the process answers."""
        return json_response({"status": "alive"})

    async def ready(self, _request: Request) -> Response:
        """Can take requests; otherwise 503."""
        self._service.check_ready()
        return json_response({"status": "ready"})

    async def metrics(self, _request: Request) -> Response:
        return Response(self._service.metrics.exposition(), media_type=_EXPOSITION)

    async def _tokens(self, body: TokenizeBody, tenant: Tenant) -> tuple[int, ...]:
        if (body.prompt is None) == (body.messages is None):
            raise RequestError("give either prompt or messages", "prompt")
        if body.prompt is not None:
            added = body.add_special_tokens is not False
            return await tenant.tokenizer.encode(body.prompt, added)
        messages = [message.for_template() for message in body.messages or ()]
        text = tenant.tokenizer.chat_prompt(messages, body.chat_template_kwargs)
        return await tenant.tokenizer.encode(text, bool(body.add_special_tokens))

    def _model(self, tenant: Tenant) -> dict[str, Any]:
        return {
            "id": tenant.model.name,
            "object": "model",
            "created": self._service.created,
            "owned_by": "moe_serve",
            "max_model_len": tenant.model.context_length,
        }
