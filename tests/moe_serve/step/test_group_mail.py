"""Notes within an attention group: each is read once, in order, whatever steps break off."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from moe_serve.step.group_mail import GroupMail
from moe_serve.step.group_notes import Begin, Drop, Ended, Hold, Ready


def boxes(size: int) -> list[GroupMail]:
    return [GroupMail(index, size) for index in range(size)]


def step(mails: Sequence[GroupMail], there: Sequence[bool] = ()) -> list[list[object]]:
    """What each member read; one that was broken off has not got the letters."""
    letters = [mail.seal() for mail in mails]
    came = there or [True] * len(mails)
    return [
        list(mail.read(letters)) if has_come else []
        for mail, has_come in zip(mails, came, strict=True)
    ]


def test_the_leader_writes_to_all_and_members_to_the_leader() -> None:
    mails = boxes(3)
    notes = [Begin("a", 4, 99), Hold("a", (3, 1), 16), Drop("a", "why")]
    for note in notes:
        mails[0].write(note)
    mails[1].write(Ready("b"))
    mails[2].write(Ended("b", "it broke"))
    assert all(mail.has_notes for mail in mails)
    heard = step(mails)
    assert heard[0] == [(1, Ready("b")), (2, Ended("b", "it broke"))]
    assert heard[1] == heard[2] == [(0, note) for note in notes]
    # One more step says that they were read.
    assert step(mails) == [[], [], []]
    assert not any(mail.has_notes for mail in mails)


def test_who_is_alone_writes_to_nobody() -> None:
    (alone,) = boxes(1)
    alone.write(Ready("a"))
    assert not alone.has_notes and alone.seal() == b"" and alone.read([b""]) == []


@given(
    st.integers(2, 4),
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.booleans(), min_size=4, max_size=4))),
)
def test_each_note_is_read_once_and_in_order(
    size: int, turns: list[tuple[int, list[bool]]]
) -> None:
    mails = boxes(size)
    written: list[list[object]] = [[] for _ in mails]
    read: list[list[object]] = [[] for _ in mails]
    for number, (writer, there) in enumerate([*turns, *[(0, [True] * 4)] * 3]):
        note = Ready(str(number))
        mails[writer % size].write(note)
        written[writer % size].append(note)
        for member, news in enumerate(step(mails, there[:size])):
            read[member] += news
    for member in range(1, size):
        assert read[member] == [(0, note) for note in written[0]]
        assert [note for other, note in read[0] if other == member] == written[member]
