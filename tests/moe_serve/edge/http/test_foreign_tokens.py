"""A tokenizer may know tokens that its model lacks: they are refused, not computed."""

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("completions", {"prompt": "hello"}),
        ("completions", {"prompt": ["hello", "world"]}),
        ("chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
    ],
)
def test_a_text_with_ids_beyond_the_vocabulary_is_400(
    route: str, body: dict[str, Any], small_model: Any
) -> None:
    with small_model(vocab_size=10) as server:
        response = server.client.post(f"/v1/{route}", json={"model": "plain", **body})
        assert response.status_code == 400
        assert "is not in 0..9" in response.json()["error"]["message"]
        assert server.engine.seen == []
