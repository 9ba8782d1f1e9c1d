"""One trusted connection in work: frames out in turn, frames in, pings when there is no other."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from moe_comm.kv.block import Parts, block_bytes, decode_block
from moe_comm.kv.declared_link import DeclaredLink
from moe_comm.kv.frames import Frame, FrameError, encode_head
from moe_comm.kv.greeting import Peer
from moe_comm.kv.limits import MAX_BLOCK_BYTES, KvLimits
from moe_comm.kv.messages import Block, Goodbye, Message, Ping
from moe_comm.kv.number_types import Array
from moe_comm.kv.stream import FrameStream

# Converting more than this in the loop's own thread would delay pings.
_QUICK_BYTES = 1 << 18

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Parcel:
    """Something to send when its turn comes.

    Attributes:
        pack: makes the pieces of a frame, or nothing if it is no longer wanted.
        done: called once, when it is sent or thrown away.
        num_bytes: about how many numbers' bytes `pack` works on.
    """

    pack: Callable[[], Sequence[bytes | Array]]
    done: Callable[[], None]
    num_bytes: int = 0


class Link:
    """What is put goes out in order, once `run` runs.

    Args:
        declared: what carries it, where that is only emulated.
    """

    def __init__(
        self,
        stream: FrameStream,
        peer: Peer,
        limits: KvLimits,
        declared: DeclaredLink | None = None,
    ) -> None:
        self.peer = peer
        self.name = peer.hello.name
        self._stream = stream
        self._limits = limits
        self._declared = declared
        # With the time at which each was put.
        self._parcels: deque[tuple[float, Parcel]] = deque()
        self._filled = asyncio.Event()
        self._num_transfers = 0
        self._within_frame = False
        self._is_over = False

    def next_transfer(self) -> int:
        self._num_transfers += 1
        return self._num_transfers

    def say(self, message: Message) -> None:
        self.put(Parcel(lambda: [encode_head(message)], lambda: None))

    def put(self, parcel: Parcel) -> None:
        if self._is_over:
            parcel.done()
            return
        self._parcels.append((time.monotonic(), parcel))
        self._filled.set()

    def cut(self) -> None:
        """Ends `run`."""
        self._stream.shut_down()

    async def run(
        self,
        on_message: Callable[[Message, Parts | None], None],
        has_room: Callable[[], Awaitable[None]],
    ) -> str:
        """Until the connection ends; returns why it did.

        Args:
            on_message: gets a block's numbers too; raises FrameError if the message breaks the
                protocol.
            has_room: awaited before each frame is read.
        """
        fault: Exception = ConnectionResetError()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write())
                group.create_task(self._ping())
                group.create_task(self._read(on_message, has_room))
        except* (OSError, FrameError) as errors:
            fault = errors.exceptions[0]
        finally:
            self._throw_away()
        if isinstance(fault, FrameError) and not self._within_frame:
            await self._stream.part(str(fault))
        return str(fault)

    async def _read(
        self,
        on_message: Callable[[Message, Parts | None], None],
        has_room: Callable[[], Awaitable[None]],
    ) -> None:
        while True:
            await has_room()
            frame = await self._stream.receive(self._payload_bytes)
            if isinstance(frame.message, Goodbye):
                raise ConnectionResetError(frame.message.reason)
            on_message(frame.message, await self._unpack(frame))
            await asyncio.sleep(0)

    async def _unpack(self, frame: Frame) -> Parts | None:
        if not isinstance(block := frame.message, Block):
            return None
        agreement = self.peer.receiving
        assert agreement is not None
        work = partial(decode_block, agreement, block.layer, block.num_tokens, frame.payload)
        return await _work(work, len(frame.payload))

    async def _write(self) -> None:
        while True:
            await self._filled.wait()
            while self._parcels:
                ready, parcel = self._parcels.popleft()
                try:
                    pieces = await _work(parcel.pack, parcel.num_bytes)
                    if self._declared is not None and pieces:
                        await self._wait_for(self._declared, ready, pieces)
                    self._within_frame = True
                    await self._stream.send(pieces)
                    self._within_frame = False
                finally:
                    parcel.done()
                await asyncio.sleep(0)
            self._filled.clear()

    async def _wait_for(
        self, declared: DeclaredLink, ready: float, pieces: Sequence[bytes | Array]
    ) -> None:
        """Until a declared link would have brought a frame; meanwhile the peer hears pings."""
        num_bytes = sum(
            len(piece) if isinstance(piece, bytes) else piece.nbytes for piece in pieces
        )
        arrival = declared.arrival(ready, num_bytes)
        while (left := arrival - time.monotonic()) > 0:
            await asyncio.sleep(min(left, self._limits.ping_seconds))
            if left > self._limits.ping_seconds:
                await self._stream.send([encode_head(Ping())])

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._limits.ping_seconds)
            if not self._parcels:
                self.say(Ping())

    def _throw_away(self) -> None:
        self._is_over = True
        while self._parcels:
            self._parcels.popleft()[1].done()

    def _payload_bytes(self, message: Message) -> int:
        if not isinstance(message, Block):
            return 0
        agreement = self.peer.receiving
        if agreement is None or message.layer >= len(agreement.layers):
            raise FrameError(f"a block of layer {message.layer}, which was not agreed on")
        num_bytes = block_bytes(agreement, message.layer, message.num_tokens)
        if not 0 < num_bytes <= MAX_BLOCK_BYTES:
            raise FrameError(f"a block of {num_bytes} bytes; 1 to {MAX_BLOCK_BYTES} may come")
        return num_bytes


async def _work(work: Callable[[], Result], num_bytes: int) -> Result:
    return work() if num_bytes <= _QUICK_BYTES else await asyncio.to_thread(work)
