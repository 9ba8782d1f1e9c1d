"""A bounded number of an Ascend NPU's cores for work that runs beside other work.

NEVER RUN ON HARDWARE YET: written after torch_npu 2.13.0 and the manuals of torch_npu and CANN. A
limit is a cap: operators on a stream use so many cores at most. The caps of one split add up to the
cores there are, but nothing promises that two streams' cores are disjoint. Only operators written
in Ascend C obey; where others run beside them, the manual warns of slower streams and of hangs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from moe_devices.errors import DeviceError
from moe_devices.partition import units_by_percent
from moe_devices.streams import work_on


class LimitedStream:
    """Implements Partition: a stream whose operators use some cores at most; memory is shared.

    Args:
        npu: torch.npu.
        num_cubes: cores that multiply matrices.
        num_vectors: cores for all else; -1 leaves them all.
    """

    def __init__(self, npu: Any, index: int, num_cubes: int, num_vectors: int) -> None:
        self._npu = npu
        self._index = index
        self._num_cubes = num_cubes
        self._num_vectors = num_vectors
        self._stream = npu.Stream(device=index)
        npu.set_stream_limit(self._stream, cube_num=num_cubes, vector_num=num_vectors)

    @property
    def name(self) -> str:
        vectors = f" and {self._num_vectors} vector" if self._num_vectors > 0 else ""
        return f"at most {self._num_cubes} cube{vectors} cores of NPU {self._index}"

    @contextmanager
    def use(self) -> Iterator[None]:
        """What this thread has queued so far is waited for, and later work waits for this one's."""
        with work_on(self._npu, self._stream, self._index):
            yield

    def close(self) -> None:
        """Torch may hand the stream to others again: its limit goes, when its work is done."""
        self._stream.synchronize()
        self._npu.reset_stream_limit(self._stream)


def limit_streams(npu: Any, index: int, percents: Sequence[int]) -> tuple[LimitedStream, ...]:
    """Divide an NPU's cube cores, and its vector cores in proportion -> a part for each percentage,
    and one of what is left.

    From here on this process makes no tensors in the NPU's private formats: limits do not go
    together with them. Those that are there already keep theirs.

    Args:
        npu: torch.npu.

    Raises:
        DeviceError: more than there is, less than one core, none left, or no stream limits.
    """
    cores = npu.get_device_properties(index)
    cubes = units_by_percent(percents, max(0, cores.cube_core_num), "cube cores")
    parts: list[LimitedStream] = []
    try:
        npu.config.allow_internal_format = False
        for num_cubes in cubes:
            num_vectors = num_cubes * cores.vector_core_num // cores.cube_core_num
            parts.append(LimitedStream(npu, index, num_cubes, num_vectors or -1))
    except (AttributeError, RuntimeError) as error:
        for part in parts:
            part.close()
        raise DeviceError(
            f"NPU {index} takes no stream limits ({str(error).partition(chr(10))[0]}); install a "
            "CANN and a torch-npu that have them, or share it in time (isolate: time)"
        ) from error
    return tuple(parts)
