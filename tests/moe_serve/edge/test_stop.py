"""Stop strings, against a search that looks at every character."""

from hypothesis import example, given
from hypothesis import strategies as st

from moe_serve.edge.stop import StopMatcher, num_held

PIECES = st.lists(st.text("ab中", max_size=4), max_size=12)
STOPS = st.lists(st.text("ab中", min_size=1, max_size=5), max_size=4)


def naive(text: str, stops: list[str]) -> str:
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)]
    return text


@given(PIECES, STOPS)
@example(["a", "a", "b"], ["aab"])
@example(["aa", "ab"], ["aab"])
@example(["abab", "a"], ["ba", "abab"])
def test_equals_the_naive_search_for_any_pieces(pieces: list[str], stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    shown = "".join(map(matcher.add, pieces))
    whole = "".join(pieces)
    assert matcher.stopped == any(stop in whole for stop in stops)
    assert shown + matcher.finish() == naive(whole, stops)


@given(PIECES, STOPS)
def test_holds_back_no_more_than_a_stop_string_could_need(
    pieces: list[str], stops: list[str]
) -> None:
    matcher, given_text, shown = StopMatcher(stops), "", ""
    for piece in pieces:
        given_text += piece
        shown += matcher.add(piece)
        if matcher.stopped:
            return
        held = given_text[len(shown) :]
        assert given_text == shown + held
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


def test_stops_at_the_token_that_completes_the_string() -> None:
    matcher = StopMatcher(["END"])
    assert [matcher.add(piece) for piece in ("ab E", "N")] == ["ab ", ""]
    assert not matcher.stopped
    assert matcher.add("D and more") == ""
    assert matcher.stopped
    assert matcher.add("later") == matcher.finish() == ""


def test_num_held_is_a_proper_beginning() -> None:
    assert num_held("xab", ["abc"]) == 2
    assert num_held("abc", ["abc"]) == 0
    assert num_held("x", []) == 0
