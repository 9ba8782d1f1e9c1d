"""/v1/embeddings"""

import base64
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from moe_serve.edge.answering import json_response
from moe_serve.edge.disconnect import until_disconnect
from moe_serve.edge.encoder_bodies import EmbeddingBody
from moe_serve.edge.encoding import check_lengths, encode, num_tokens, truncation
from moe_serve.edge.input_tokens import EncoderInput
from moe_serve.edge.parsing import read_body
from moe_serve.edge.responses import prompt_usage
from moe_serve.edge.sampling import check_ids
from moe_serve.edge.service import Service, Tenant
from moe_serve.edge.unsupported import refuse_unsupported_encoding
from moe_serve.errors import RequestError
from moe_serve.types import ServedModel


class EmbeddingRoute:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def create(self, request: Request) -> Response:
        service = self._service
        body = await read_body(request, EmbeddingBody, service.max_body_bytes)
        refuse_unsupported_encoding(body)
        with service.visit("embed", body.model) as tenant:
            _check_dimensions(body.dimensions, tenant.model)
            service.check_ready()
            inputs = await _tokens(body, tenant)
            check_lengths(inputs, tenant.model, "input")
            embeddings = await until_disconnect(request.receive, encode(service, tenant, inputs))
            as_base64 = body.encoding_format == "base64"
            data = [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": _written(values, body.dimensions, as_base64),
                }
                for index, values in enumerate(embeddings)
            ]
            usage, name = prompt_usage(num_tokens(inputs)), tenant.model.name
            return json_response({"object": "list", "data": data, "model": name, "usage": usage})


async def _tokens(body: EmbeddingBody, tenant: Tenant) -> list[EncoderInput]:
    most, tokenizer = truncation(body, tenant.model), tenant.tokenizer.inputs
    texts = [each for each in body.inputs if isinstance(each, str)]
    lists = [each for each in body.inputs if not isinstance(each, str)]
    if texts:
        return await tokenizer.tokenize(texts, most)
    checked = [check_ids(each, tenant.model.vocab_size, "input") for each in lists]
    return [tokenizer.cut(each, most) for each in checked]


def _check_dimensions(dimensions: int | None, model: ServedModel) -> None:
    if dimensions is not None and dimensions > model.embedding_width:
        raise RequestError(
            f"dimensions is {dimensions}, embeddings of this model have {model.embedding_width}; "
            "ask for no more",
            "dimensions",
        )


def _written(values: bytes, dimensions: int | None, as_base64: bool) -> Any:
    vector = np.frombuffer(values, dtype="<f4")
    if dimensions is not None and dimensions < len(vector):
        vector = shortened(vector, dimensions)
    return base64.b64encode(vector.tobytes()).decode() if as_base64 else vector.tolist()


def shortened(vector: "np.ndarray[Any, Any]", dimensions: int) -> "np.ndarray[Any, Any]":
    """The leading numbers, as long as 1 altogether: the meaning of the field at OpenAI, and good
    for models that were trained for it (Kusupati et al. 2022, arXiv:2205.13147)."""
    part = vector[:dimensions]
    length = float(np.linalg.norm(part))
    return part / np.float32(length) if length > 0 else part
