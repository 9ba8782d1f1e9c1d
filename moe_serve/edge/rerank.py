"""/v1/rerank: documents by how well they answer a query, best first."""

from typing import Any
from uuid import uuid4

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from moe_serve.edge.answering import json_response
from moe_serve.edge.disconnect import until_disconnect
from moe_serve.edge.encoder_bodies import RerankBody
from moe_serve.edge.encoding import check_lengths, encode, num_tokens, truncation
from moe_serve.edge.parsing import read_body
from moe_serve.edge.responses import prompt_usage
from moe_serve.edge.service import Service
from moe_serve.edge.unsupported import refuse_unsupported_encoding


class RerankRoute:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(self, request: Request) -> Response:
        service = self._service
        body = await read_body(request, RerankBody, service.max_body_bytes)
        refuse_unsupported_encoding(body)
        with service.visit("rerank", body.model) as tenant:
            service.check_ready()
            pairs = [(body.query, text) for text in body.texts]
            most = truncation(body, tenant.model)
            inputs = await tenant.tokenizer.inputs.tokenize(pairs, most)
            check_lengths(inputs, tenant.model, "documents")
            values = await until_disconnect(request.receive, encode(service, tenant, inputs))
            answer = {
                "id": f"rerank-{uuid4().hex}",
                "model": tenant.model.name,
                "usage": prompt_usage(num_tokens(inputs)),
                "results": _results(
                    body, [float(np.frombuffer(each, "<f4")[0]) for each in values]
                ),
            }
            return json_response(answer)


def _results(body: RerankBody, scores: list[float]) -> list[dict[str, Any]]:
    texts = body.texts
    best = sorted(range(len(scores)), key=lambda index: -scores[index])
    results: list[dict[str, Any]] = [
        {"index": index, "relevance_score": scores[index]}
        for index in best[: body.top_n or len(best)]
    ]
    if body.return_documents:
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    return results
