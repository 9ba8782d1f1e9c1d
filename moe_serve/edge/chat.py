"""/v1/chat/completions"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from moe_serve.edge.answering import answer
from moe_serve.edge.bodies import ChatBody
from moe_serve.edge.choice import Delta
from moe_serve.edge.logprobs import TokenLogprob, chat_logprobs
from moe_serve.edge.parsing import read_body
from moe_serve.edge.responses import Envelope, WholeChoice
from moe_serve.edge.sampling import CHAT, check_ids
from moe_serve.edge.service import Prompt, Service, Tenant
from moe_serve.edge.token_bytes import TokenBytes
from moe_serve.edge.unsupported import refuse_unsupported
from moe_serve.errors import RequestError


class ChatShape:
    id_prefix = "chatcmpl"
    object_name = "chat.completion"
    chunk_name = "chat.completion.chunk"

    def __init__(self, token_bytes: TokenBytes, num_top: int | None, thinks: bool) -> None:
        self._token_bytes = token_bytes
        self._num_top = num_top
        self._thinks = thinks

    def opening(self, index: int) -> dict[str, Any]:
        return self._piece(index, {"role": "assistant", "content": ""})

    def pieces(self, delta: Delta) -> list[dict[str, Any]]:
        pieces = []
        texts = {"reasoning_content": delta.reasoning, "content": delta.content}
        message: dict[str, Any] = {name: text for name, text in texts.items() if text}
        if message or delta.logprobs:
            pieces.append(
                self._piece(delta.index, message, logprobs=self._logprobs(delta.logprobs))
            )
        if delta.finish_reason is not None:
            pieces.append(self._piece(delta.index, {}, finish_reason=delta.finish_reason))
        return pieces

    def whole(self, choice: WholeChoice) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(choice.content)}
        if self._thinks:
            message["reasoning_content"] = "".join(choice.reasoning) or None
        return {
            "index": choice.index,
            "message": message,
            "logprobs": self._logprobs(choice.logprobs),
            "finish_reason": choice.finish_reason,
        }

    def _piece(self, index: int, delta: dict[str, Any], **further: Any) -> dict[str, Any]:
        return {
            "index": index,
            "delta": delta,
            "logprobs": None,
            "finish_reason": None,
            **further,
        }

    def _logprobs(self, entries: "list[TokenLogprob] | tuple[TokenLogprob, ...]") -> Any:
        if self._num_top is None:
            return None
        return chat_logprobs(entries, self._token_bytes, self._num_top)


class ChatRoute:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(self, request: Request) -> Response:
        service = self._service
        body = await read_body(request, ChatBody, service.max_body_bytes)
        refuse_unsupported(body)
        if body.top_logprobs is not None and not body.logprobs:
            raise RequestError("top_logprobs needs logprobs to be true", "top_logprobs")
        with service.visit("generate", body.model) as tenant:
            service.check_ready()
            generation = service.generation(tenant, body, [await self._prompt(body, tenant)], CHAT)
            tokenizer = tenant.tokenizer
            shape = ChatShape(tokenizer.token_bytes, body.num_logprobs, tokenizer.thinks)
            envelope = Envelope.new(shape.id_prefix, tenant.model.name, tenant.fingerprint)
            return await answer(request, body, generation, shape, envelope)

    async def _prompt(self, body: ChatBody, tenant: Tenant) -> Prompt:
        options = dict(body.chat_template_kwargs or {})
        effort = (body.model_extra or {}).get("reasoning_effort")
        if effort is not None:
            options.setdefault("reasoning_effort", effort)
        messages = [message.for_template() for message in body.messages]
        text = tenant.tokenizer.chat_prompt(messages, options)
        # The template has written the special tokens itself.
        token_ids = await tenant.tokenizer.encode(text, add_special_tokens=False)
        return Prompt(check_ids(token_ids, tenant.model.vocab_size, "messages"), text)
