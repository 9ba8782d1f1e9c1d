"""Exchange over a torch.distributed process group: NCCL, HCCL and Gloo by one code.

Rows stay on the group's device; small vectors of ints travel on it too.
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store, TCPStore

from moe_comm.transport.exchange import (
    Exchange,
    Ints,
    PeerLostError,
    PendingCountedRows,
    WaitLoop,
)
from moe_comm.transport.process_group import close_process_group, make_process_group

# The group's own patience: ours ends first and says more.
_GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _PendingRows:
    exchange: "TorchExchange"
    work: dist.Work
    received_RD: torch.Tensor

    def poll(self) -> bool:
        return self.work.is_completed()

    def finish(self) -> torch.Tensor:
        self.exchange.wait(self.work, "rows")
        return self.received_RD


class TorchExchange:
    """Implements Exchange; counts are waited for in the start, as one group keeps one order.

    Args:
        backend: nccl, hccl or gloo, as the Device names it.
        store: where the ranks find each other; see `open_torch_exchange`.
        device: where the tensors are.
        deadline_seconds: the longest that any call waits for the other ranks.
        should_stop: the control flag; true ends a wait at once.
    """

    def __init__(
        self,
        backend: str,
        rank: int,
        size: int,
        store: Store,
        device: torch.device,
        deadline_seconds: float,
        should_stop: Callable[[], bool],
    ) -> None:
        self.rank = rank
        self.size = size
        self._device = device
        self._loop = WaitLoop(deadline_seconds, should_stop)
        self.is_lost = False
        self.lost_ranks: frozenset[int] = frozenset()
        timeout = timedelta(seconds=deadline_seconds + _GRACE_SECONDS)
        self._group = make_process_group(backend, store, rank, size, device, timeout)

    def allgather_bytes(self, data: bytes) -> list[bytes]:
        lengths = self._gather(torch.tensor([len(data)]), "lengths of data").view(-1).tolist()
        padded_data = bytearray(data.ljust(max(1, *lengths), b"\0"))
        padded = torch.frombuffer(padded_data, dtype=torch.uint8)
        gathered = self._gather(padded, "data").numpy()
        return [row[:length].tobytes() for row, length in zip(gathered, lengths, strict=True)]

    def max_reduce(self, values: Ints) -> Ints:
        result = torch.from_numpy(values.copy()).to(self._device)
        self.wait(self._group.allreduce([result], dist.ReduceOp.MAX), "values")
        reduced: Ints = result.cpu().numpy()
        return reduced

    def barrier(self) -> None:
        self.max_reduce(np.zeros(1, dtype=np.int64))

    def start_all_to_all(
        self,
        rows_RD: torch.Tensor,
        send_counts: Sequence[int],
        slot_counts_G: Ints,
        slots_per_rank: Sequence[int],
    ) -> PendingCountedRows:
        num_slots = slots_per_rank[self.rank]
        counts = self._all_to_all(
            torch.from_numpy(slot_counts_G).to(self._device),
            slots_per_rank,
            [num_slots] * self.size,
        )
        counts_NS: Ints = counts.finish().view(self.size, num_slots).cpu().numpy()
        return PendingCountedRows(
            self._all_to_all(rows_RD, send_counts, counts_NS.sum(1).tolist()), counts_NS
        )

    def start_rows(
        self, rows_RD: torch.Tensor, send_counts: Sequence[int], recv_counts: Sequence[int]
    ) -> _PendingRows:
        return self._all_to_all(rows_RD, send_counts, recv_counts)

    def allgather_rows(self, rows_RD: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """Padded to the longest: not every backend gathers unequal parts."""
        most = max(counts)
        padded_RD = rows_RD
        if len(rows_RD) < most:
            padded_RD = rows_RD.new_zeros(most, rows_RD.shape[1])
            padded_RD[: len(rows_RD)] = rows_RD
        gathered = rows_RD.new_empty(self.size, most, rows_RD.shape[1])
        work = self._group.allgather([list(gathered.unbind(0))], [padded_RD])
        self.wait(work, "gathered rows")
        if min(counts) == most:
            return gathered.flatten(0, 1)
        return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])

    def abandon(self) -> None:
        """Use it no more, whatever is under way; nobody is waited for."""
        self.is_lost = True
        self._group.abort()

    def close(self) -> None:
        """Meets the other ranks, so that none leaves while another still receives."""
        if self.is_lost:
            return
        try:
            self.barrier()
        except PeerLostError:
            return
        close_process_group(self._group)

    def wait(self, work: dist.Work, what: str) -> None:
        try:
            self._loop.until(work.is_completed, f"{what} from the {self.size - 1} other ranks")
            work.wait()
        except PeerLostError:
            self.is_lost = True
            raise
        except RuntimeError as error:
            self.is_lost = True
            raise PeerLostError(f"the process group failed while {what} moved: {error}") from error

    def _all_to_all(
        self, send: torch.Tensor, send_counts: Sequence[int], recv_counts: Sequence[int]
    ) -> _PendingRows:
        received = send.new_empty(sum(recv_counts), *send.shape[1:])
        work = self._group.alltoall_base(received, send, list(recv_counts), list(send_counts))
        return _PendingRows(self, work, received)

    def _gather(self, values: torch.Tensor, what: str) -> torch.Tensor:
        values = values.to(self._device)
        gathered = values.new_empty(self.size, len(values))
        self.wait(self._group.allgather([list(gathered.unbind(0))], [values]), what)
        return gathered.cpu()


def open_torch_exchange(
    bring_up: Exchange,
    host: str,
    backend: str,
    device: torch.device,
    deadline_seconds: float,
    should_stop: Callable[[], bool],
) -> TorchExchange:
    """The same ranks as `bring_up`'s, over torch.distributed; called by all of them.

    Args:
        host: an address of this host at which the other ranks reach it; rank 0's is used, and
            its store listens at that address alone.

    Raises:
        PeerLostError: not all ranks came in time.
    """
    timeout = timedelta(seconds=deadline_seconds)
    hosted = _host_store(host, bring_up.size, timeout) if bring_up.rank == 0 else None
    address = f"{host}:{hosted.port}" if hosted is not None else ""
    store_address = bring_up.allgather_bytes(address.encode())[0].decode()
    try:
        store = hosted or _find_store(store_address, bring_up.size, timeout)
        return TorchExchange(
            backend, bring_up.rank, bring_up.size, store, device, deadline_seconds, should_stop
        )
    except RuntimeError as error:
        raise PeerLostError(
            f"no {backend} group of {bring_up.size} ranks within {deadline_seconds:g} s: {error}"
        ) from error


def _host_store(host: str, size: int, timeout: timedelta) -> TCPStore:
    listener = socket.create_server((host, 0))
    port = listener.getsockname()[1]
    return TCPStore(
        host,
        port,
        size,
        is_master=True,
        timeout=timeout,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def _find_store(address: str, size: int, timeout: timedelta) -> TCPStore:
    host, port = address.rsplit(":", 1)
    return TCPStore(host, int(port), size, is_master=False, timeout=timeout)
