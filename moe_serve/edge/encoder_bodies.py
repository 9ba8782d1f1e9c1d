"""Request bodies of encoders: OpenAI's embeddings, and reranking as Cohere and Jina shaped it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from moe_serve.edge.bodies import Body, Listed, Some, TokenId, one_of

# OpenAI's limit.
MAX_INPUTS = 2048
Inputs = Annotated[Listed, Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
Text = Annotated[str, Field(min_length=1)]


class EncoderBody(Body):
    """Attributes:
    truncate_prompt_tokens: longer inputs are cut to so many tokens; -1 is all that the model
        takes.
    """

    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None


class EmbeddingBody(EncoderBody):
    input: Annotated[
        Text | Inputs[list[Text]] | Some[list[TokenId]] | Inputs[list[Some[list[TokenId]]]],
        one_of(
            "a string, a list of token ids, or a list of up to "
            f"{MAX_INPUTS} strings or lists of token ids, none of them empty"
        ),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None

    @property
    def inputs(self) -> list[str] | list[list[int]]:
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [self.input]
        return self.input


class Document(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    text: str


class RerankBody(EncoderBody):
    """Attributes:
    top_n: how many of the best to answer with; 0 is all of them.
    """

    query: Text
    documents: Annotated[
        Inputs[list[str | Document]],
        one_of(f"a list of 1 to {MAX_INPUTS} strings or objects with a string in `text`"),
    ]
    top_n: Annotated[int, Field(ge=0)] | None = None
    return_documents: bool | None = None

    @property
    def texts(self) -> list[str]:
        return [each if isinstance(each, str) else each.text for each in self.documents]
