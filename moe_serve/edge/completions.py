"""/v1/completions"""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from moe_serve.edge.answering import answer
from moe_serve.edge.bodies import CompletionBody
from moe_serve.edge.choice import ChoiceEnd, Delta
from moe_serve.edge.logprobs import TokenLogprob, completion_logprobs
from moe_serve.edge.parsing import read_body
from moe_serve.edge.responses import Envelope, WholeChoice
from moe_serve.edge.sampling import COMPLETION, check_ids
from moe_serve.edge.service import Prompt, Service, Tenant
from moe_serve.edge.token_bytes import TokenBytes
from moe_serve.edge.unsupported import refuse_unsupported


class CompletionShape:
    id_prefix = "cmpl"
    object_name = "text_completion"
    chunk_name = "text_completion"

    def __init__(self, token_bytes: TokenBytes, num_top: int | None) -> None:
        self._token_bytes = token_bytes
        self._num_top = num_top

    def opening(self, index: int) -> None:
        return None

    def pieces(self, delta: Delta) -> list[dict[str, Any]]:
        return [self._entry(delta.index, delta.content, delta.logprobs, delta.finish_reason)]

    def whole(self, choice: WholeChoice) -> dict[str, Any]:
        text = "".join(choice.content)
        return self._entry(choice.index, text, choice.logprobs, choice.finish_reason)

    def _entry(
        self, index: int, text: str, entries: Sequence[TokenLogprob], end: ChoiceEnd | None
    ) -> dict[str, Any]:
        logprobs = None
        if self._num_top is not None:
            logprobs = completion_logprobs(entries, self._token_bytes, self._num_top)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": end}


class CompletionRoute:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(self, request: Request) -> Response:
        service = self._service
        body = await read_body(request, CompletionBody, service.max_body_bytes)
        refuse_unsupported(body)
        with service.visit("generate", body.model) as tenant:
            service.check_ready()
            prompts = [await self._prompt(prompt, tenant) for prompt in body.prompts]
            generation = service.generation(tenant, body, prompts, COMPLETION)
            shape = CompletionShape(tenant.tokenizer.token_bytes, body.num_logprobs)
            envelope = Envelope.new(shape.id_prefix, tenant.model.name, tenant.fingerprint)
            return await answer(request, body, generation, shape, envelope)

    async def _prompt(self, prompt: str | list[int], tenant: Tenant) -> Prompt:
        if isinstance(prompt, str):
            token_ids = await tenant.tokenizer.encode(prompt, add_special_tokens=True)
        else:
            token_ids = tuple(prompt)
        return Prompt(check_ids(token_ids, tenant.model.vocab_size, "prompt"))
