"""Ranks go on together: what one of them could not do, all of them say."""

import pytest

from moe_serve.control.meeting.together import together
from moe_serve.errors import AgreedError, CheckpointError

CUDA_WORDS = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of "
    "which 1.02 GiB is free. Process 7 has 78.08 GiB memory in use."
)
CPU_WORDS = (
    "[enforce fail at alloc_cpu.cpp:129] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4096 bytes. Error code 12 (Cannot allocate memory)"
)


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


class Ranks:
    """Rank 0's view of a world in which the others had no errors, or these."""

    def __init__(self, *others: str) -> None:
        self._others = others

    @property
    def size(self) -> int:
        return 1 + len(self._others)

    def allgather_bytes(self, data: bytes) -> list[bytes]:
        return [data, *(text.encode() for text in self._others)]


def test_what_went_well_is_given_back() -> None:
    assert together(Ranks("", ""), lambda: 7) == 7


def test_the_lowest_failing_rank_is_named_unless_all_say_the_same() -> None:
    def fail() -> None:
        raise CheckpointError("no such tensor")

    with pytest.raises(AgreedError, match=r"^rank 1: gone$"):
        together(Ranks("gone", "gone"), lambda: 7)
    with pytest.raises(AgreedError, match=r"^rank 0: no such tensor$"):
        together(Ranks(""), fail)
    with pytest.raises(AgreedError, match=r"^no such tensor$"):
        together(Ranks("no such tensor"), fail)


def test_ranks_of_a_later_pool_are_named_by_their_plan_rank() -> None:
    with pytest.raises(AgreedError, match=r"^rank 5: gone$"):
        together(Ranks("gone"), lambda: 7, [4, 5])


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (
            OutOfMemoryError(CUDA_WORDS),
            r"^out of memory: it tried to allocate 2.00 GiB; lower cache",
        ),
        (RuntimeError(CPU_WORDS), r"^out of memory: it tried to allocate 4096 bytes; lower cache"),
        (MemoryError(), "^out of memory: MemoryError; lower cache.memory_fraction"),
    ],
)
def test_too_little_memory_is_an_error_of_the_user_s(failure: Exception, said: str) -> None:
    def fail() -> None:
        raise failure

    with pytest.raises(AgreedError, match=said) as caught:
        together(Ranks(), fail)
    assert "\n" not in str(caught.value)


def test_a_bug_stays_a_bug() -> None:
    def fail() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        together(Ranks(), fail)
