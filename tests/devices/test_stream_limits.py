"""An NPU's cores divided: the calls and their order, on what torch.npu would keep of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from moe_devices.errors import DeviceError
from moe_devices.stream_limits import LimitedStream, limit_streams


class NpuStream:
    def __init__(self, device: int = 0) -> None:
        assert device == 0
        self.waited_for: list[NpuStream] = []
        self.limits: dict[str, int] = {}
        self.has_work = False

    def wait_stream(self, other: "NpuStream") -> None:
        self.waited_for.append(other)

    def synchronize(self) -> None:
        self.has_work = False


class Npu:
    """Keeps what torch.npu would of one NPU, and refuses what the manual forbids."""

    Stream = NpuStream

    def __init__(self, num_cubes: int = 24, num_vectors: int = 48, num_limits: int = 99) -> None:
        self.config = SimpleNamespace(allow_internal_format=True)
        self.current = NpuStream()
        self.limited: list[NpuStream] = []
        self._cores = SimpleNamespace(cube_core_num=num_cubes, vector_core_num=num_vectors)
        self._num_limits = num_limits

    def get_device_properties(self, device: int) -> SimpleNamespace:
        return self._cores

    def set_stream_limit(self, stream: NpuStream, cube_num: int = -1, vector_num: int = -1) -> None:
        assert not self.config.allow_internal_format, "limits do not hold for private formats"
        assert 1 <= cube_num <= self._cores.cube_core_num
        assert vector_num == -1 or 1 <= vector_num <= self._cores.vector_core_num
        if len(self.limited) == self._num_limits:
            raise RuntimeError("Failed to find function aclrtSetStreamResLimit\n[ERROR] and more")
        stream.limits = {"cube": cube_num, "vector": vector_num}
        self.limited.append(stream)

    def reset_stream_limit(self, stream: NpuStream) -> None:
        assert not stream.has_work, "its operators would go on with all cores"
        self.limited.remove(stream)

    def current_stream(self, device: int) -> NpuStream:
        return self.current

    @contextmanager
    def stream(self, stream: NpuStream) -> Iterator[None]:
        outer, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = outer


def test_parts_are_caps_that_add_up_to_all_cores() -> None:
    npu = Npu()
    parts = limit_streams(npu, 0, [25, 10])
    assert [part.name for part in parts] == [
        "at most 6 cube and 12 vector cores of NPU 0",
        "at most 2 cube and 4 vector cores of NPU 0",
        "at most 16 cube and 32 vector cores of NPU 0",  # what is left
    ]
    assert sum(stream.limits["cube"] for stream in npu.limited) == 24
    assert sum(stream.limits["vector"] for stream in npu.limited) == 48
    for part in parts:
        part.close()
    assert npu.limited == []


def test_a_part_begins_after_what_was_queued_and_is_waited_for() -> None:
    npu = Npu()
    part, _ = limit_streams(npu, 0, [25])
    outer, inner = npu.current, npu.limited[0]
    with pytest.raises(KeyError), part.use():
        assert npu.current is inner
        assert (inner.waited_for, outer.waited_for) == ([outer], [])
        inner.has_work = True
        raise KeyError
    assert npu.current is outer
    assert outer.waited_for == [inner]
    part.close()
    assert not inner.has_work


def test_an_npu_without_vector_cores_has_its_cube_cores_divided() -> None:
    npu = Npu(num_vectors=0)
    parts = limit_streams(npu, 0, [50])
    assert [part.name for part in parts] == ["at most 12 cube cores of NPU 0"] * 2
    assert [stream.limits["vector"] for stream in npu.limited] == [-1, -1]


@pytest.mark.parametrize(
    ("split", "refusal"),
    [
        (lambda: limit_streams(Npu(), 0, [4]), "4 % of 24 cube cores is 0.96"),
        (lambda: limit_streams(Npu(), 0, [60, 41]), "more than the 24 cube cores"),
        (lambda: limit_streams(Npu(), 0, [50, 50]), "take all 24 cube cores"),
        (lambda: limit_streams(Npu(num_cubes=-1), 0, [50]), "50 % of 0 cube cores"),
        (
            lambda: limit_streams(
                SimpleNamespace(get_device_properties=Npu().get_device_properties), 0, [50]
            ),
            "NPU 0 takes no stream limits .*'config'",
        ),
    ],
)
def test_what_an_npu_cannot_do_is_refused(
    split: Callable[[], tuple[LimitedStream, ...]], refusal: str
) -> None:
    with pytest.raises(DeviceError, match=refusal):
        split()


def test_limits_that_are_set_go_again_where_one_cannot_be() -> None:
    npu = Npu(num_limits=1)
    said = r"no stream limits \(Failed to find function aclrtSetStreamResLimit\); install a CANN"
    with pytest.raises(DeviceError, match=said):
        limit_streams(npu, 0, [50])
    assert npu.limited == []
