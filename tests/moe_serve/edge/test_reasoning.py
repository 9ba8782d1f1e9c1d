"""Reasoning apart from content, however the answer is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_serve.edge.reasoning import ReasoningSplitter, SplitText

PARTS = ["<think>", "</think>", "<thi", "nk>", "</", "\n", "a", "中", " "]


def split(pieces: list[str], opened: bool) -> tuple[str, str]:
    splitter = ReasoningSplitter(opened)
    found = [*map(splitter.add, pieces), splitter.finish()]
    return "".join(part.reasoning for part in found), "".join(part.content for part in found)


@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "content"),
    [
        ("<think>why</think>because", False, "why", "because"),
        ("\n<think>\nwhy\n</think>\n\nbecause", False, "why\n", "because"),
        ("why</think>because", True, "why", "because"),
        ("\n\nwhy</think>\n\nbecause", True, "why", "because"),
        ("<think>why</think>because", True, "why", "because"),
        ("</think>because", True, "", "because"),
        ("no thought, <think>only text</think>", False, "", "no thought, <think>only text</think>"),
        ("<think>a</think>b<think>c</think>", False, "a", "b<think>c</think>"),
        ("<think>never ends", False, "never ends", ""),
        ("never ends</thi", True, "never ends</thi", ""),
        ("<thinker", False, "", "<thinker"),
        ("\n", False, "", "\n"),
        ("<thi", True, "<thi", ""),
        ("", True, "", ""),
    ],
)
def test_splits_a_whole_answer(text: str, opened: bool, reasoning: str, content: str) -> None:
    assert split([text], opened) == (reasoning, content)


@given(st.lists(st.sampled_from(PARTS), max_size=10), st.booleans(), st.data())
def test_any_pieces_equal_the_whole(parts: list[str], opened: bool, data: st.DataObject) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    edges = zip([0, *cuts], [*cuts, len(text)], strict=True)
    assert split([text[start:end] for start, end in edges], opened) == split([text], opened)


def test_shows_text_that_cannot_be_a_tag_at_once() -> None:
    splitter = ReasoningSplitter(opened=True)
    assert splitter.add("because a <") == SplitText(reasoning="because a ")
    assert splitter.add("b") == SplitText(reasoning="<b")
