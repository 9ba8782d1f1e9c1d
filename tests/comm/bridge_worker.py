"""One rank of the bridge checks: `mpirun -n 6 python bridge_worker.py`.

Every check runs on all ranks; one that fails prints its traceback and ends them all.
"""

import json
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from bridge_cases import (
    EXACT_CASES,
    LOSSY_CASES,
    STEPS,
    Case,
    compute,
    experts,
    link_bytes,
    on_one_rank,
    pool_by_pool,
)
from moe_comm.bridge import BridgeDispatcher
from moe_comm.transport.exchange import Exchange, Pending
from moe_comm.transport.local import LocalExchange
from moe_comm.transport.mpi import MpiExchange
from moe_comm.transport.roll_call import start_mpi
from moe_comm.transport.tcp import TcpExchange
from moe_comm.transport.torch_dist import open_torch_exchange

DEADLINE = 30.0


class Ranks:
    """All ranks, and their pools' exchanges by how the ranks are shared out."""

    def __init__(self) -> None:
        self._communicator = start_mpi()
        self.group: Exchange = MpiExchange(self._communicator, DEADLINE, never)
        self.rank = self.group.rank
        self._natives: dict[tuple[str, ...], Exchange] = {}

    def native(self, pools: tuple[str, ...]) -> Exchange:
        """Made by all ranks at the same time."""
        if pools not in self._natives:
            part = self._communicator.Split(pools.index(pools[self.rank]), self.rank)
            alone = part.Get_size() == 1
            native = LocalExchange() if alone else MpiExchange(part, DEADLINE, never)
            self._natives[pools] = native
        return self._natives[pools]

    def bridge(self, case: Case) -> BridgeDispatcher:
        return case.bridge(self.group, self.native(case.pools))

    def run(self, case: Case) -> torch.Tensor:
        return there_and_back(self.bridge(case), case, self.rank)

    def total(self, number: int) -> int:
        return sum(int(each) for each in self.group.allgather_bytes(b"%d" % number))

    def close(self) -> None:
        for native in self._natives.values():
            native.close()
        self.group.close()


class LossyExchange:
    """An exchange that empties the first of the float32 rows that it returns, on one rank."""

    def __init__(self, inner: Exchange, faulty: bool) -> None:
        self.rank, self.size = inner.rank, inner.size
        self.start_all_to_all = inner.start_all_to_all
        self._inner = inner
        self._faulty = faulty

    def start_rows(
        self, rows_RD: torch.Tensor, send_counts: Sequence[int], recv_counts: Sequence[int]
    ) -> Pending[torch.Tensor]:
        if self._faulty:
            assert len(rows_RD)
            rows_RD[0] = 0
        return self._inner.start_rows(rows_RD, send_counts, recv_counts)


def never() -> bool:
    return False


def there_and_back(bridge: BridgeDispatcher, case: Case, rank: int) -> torch.Tensor:
    return compute(bridge, case.tokens(rank).start(bridge), case.slots[rank]).finish()


def check_exact(ranks: Ranks) -> None:
    for case in EXACT_CASES:
        tokens = case.tokens(ranks.rank)
        y_TD = ranks.run(case)
        assert y_TD.dtype == case.dtype, case.name
        assert torch.equal(y_TD, pool_by_pool(case, tokens)), case.name
        expected = on_one_rank(case, tokens).float()
        tolerance = max(1e-6, torch.finfo(case.dtype).eps)
        error_T = (y_TD.float() - expected).norm(dim=1)
        assert (error_T <= tolerance * expected.norm(dim=1)).all(), case.name


def check_lossy_wires(ranks: Ranks) -> None:
    for case, share in LOSSY_CASES:
        tokens = case.tokens(ranks.rank)
        error_TD = (ranks.run(case) - on_one_rank(case, tokens)).abs()
        gain_T1 = ((tokens.ids_TK + 0.37) * tokens.weights_TK).sum(1, keepdim=True)
        largest_T1 = tokens.x_TD.abs().amax(1, keepdim=True)
        bound_TD = 1.001 * gain_T1 * largest_T1 * share + 1e-5 * gain_T1
        assert (error_TD <= bound_TD).all(), f"{case.name}: {(error_TD / bound_TD).max():.3f}"
        assert error_TD.max() > 0.05 * bound_TD.max(), f"{case.name} is not used"


def check_bytes(ranks: Ranks) -> None:
    for case in (*EXACT_CASES, *(case for case, _ in LOSSY_CASES)):
        bridge = ranks.bridge(case)
        there_and_back(bridge, case, ranks.rank)
        own = bridge.bytes_by_link
        home = case.pools[ranks.rank]
        assert set(own) == {f"{home}>{other}" for other in case.pools if other != home}
        gathered = ranks.group.allgather_bytes(json.dumps(dict(own)).encode())
        total = sum((Counter(json.loads(each)) for each in gathered), Counter())
        expected = link_bytes(case)
        assert {link: total[link] for link in expected} == expected, case.name
        if case.pools.count(home) == 1:
            assert bridge.bytes_sent == sum(own.values()), case.name
        else:
            assert bridge.bytes_sent >= sum(own.values()), case.name


def check_a_lost_sum_is_seen(ranks: Ranks) -> None:
    case = EXACT_CASES[1]
    group = LossyExchange(ranks.group, faulty=ranks.rank == 3)
    bridge = case.bridge(group, ranks.native(case.pools))  # type: ignore[arg-type]
    y_TD = there_and_back(bridge, case, ranks.rank)
    assert num_wrong(ranks, y_TD, case) == 1


def check_a_lost_row_is_seen(ranks: Ranks) -> None:
    case = EXACT_CASES[2]
    bridge = ranks.bridge(case)
    rows, handle = case.tokens(ranks.rank).start(bridge).finish()
    y_RD = experts(rows, case.slots[ranks.rank])
    if ranks.rank == 4:
        y_RD[len(y_RD) // 2] = 0
    y_TD = bridge.start_combine(y_RD, handle).finish()
    assert num_wrong(ranks, y_TD, case) == 1


def num_wrong(ranks: Ranks, y_TD: torch.Tensor, case: Case) -> int:
    expected = pool_by_pool(case, case.tokens(ranks.rank))
    return ranks.total(int((y_TD != expected).any(1).sum()))


def check_steps_of_one_dispatcher(ranks: Ranks) -> None:
    bridge = ranks.bridge(STEPS[0])
    for case in STEPS:
        y_TD = there_and_back(bridge, case, ranks.rank)
        assert torch.equal(y_TD, pool_by_pool(case, case.tokens(ranks.rank)))


def check_two_steps_under_way(ranks: Ranks) -> None:
    bridge = ranks.bridge(STEPS[0])
    tokens = [case.tokens(ranks.rank) for case in STEPS[:2]]
    pending = [each.start(bridge) for each in tokens]
    combines = [compute(bridge, each, STEPS[0].slots[ranks.rank]) for each in pending]
    for combine, each in zip(combines, tokens, strict=True):
        assert torch.equal(combine.finish(), pool_by_pool(STEPS[0], each))


def check_polls_between_change_nothing(ranks: Ranks) -> None:
    """Ranks come late, each in its turn, and look at what is under way as often as they like."""
    for case in STEPS:
        bridge = ranks.bridge(case)
        time.sleep(0.002 * (ranks.rank % 3))
        pending = case.tokens(ranks.rank).start(bridge)
        for _ in range(50 * (ranks.rank % 2)):
            pending.poll()
        y_TD = compute(bridge, pending, case.slots[ranks.rank]).finish()
        assert torch.equal(y_TD, pool_by_pool(case, case.tokens(ranks.rank)))


def check_a_tokens_sum_does_not_depend_on_its_home(ranks: Ranks) -> None:
    """All ranks have the same tokens; in float32 all get the same bits."""
    for case in EXACT_CASES[1:4]:
        same = replace(case, num_tokens=(40,) * 6)
        tokens, bridge = same.tokens(0), ranks.bridge(same)
        y_TD = compute(bridge, tokens.start(bridge), same.slots[ranks.rank]).finish()
        assert len(set(ranks.group.allgather_bytes(y_TD.numpy().tobytes()))) == 1, case.name


def check_native_over_gloo(ranks: Ranks) -> None:
    case = EXACT_CASES[2]
    over_mpi = ranks.native(case.pools)
    cpu = torch.device("cpu")
    native = open_torch_exchange(over_mpi, "127.0.0.1", "gloo", cpu, DEADLINE, never)
    bridge = case.bridge(ranks.group, native)
    for _ in range(2):
        y_TD = there_and_back(bridge, case, ranks.rank)
        assert torch.equal(y_TD, pool_by_pool(case, case.tokens(ranks.rank)))
    native.close()


def check_group_over_tcp(ranks: Ranks) -> None:
    group = over_tcp(ranks.group)
    case = replace(LOSSY_CASES[3][0], num_tokens=EXACT_CASES[9].num_tokens)
    for each in (EXACT_CASES[2], case, STEPS[2], EXACT_CASES[12]):
        y_TD = there_and_back(each.bridge(group, ranks.native(each.pools)), each, ranks.rank)
        assert torch.equal(y_TD, ranks.run(each)), each.name
    group.close()


def over_tcp(group: Exchange) -> TcpExchange:
    connections: dict[int, socket.socket] = {}
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE)
        addresses = group.allgather_bytes(json.dumps(server.getsockname()).encode())
        for rank in range(group.rank):
            address = tuple(json.loads(addresses[rank]))
            connections[rank] = socket.create_connection(address, DEADLINE)
            connections[rank].sendall(bytes([group.rank]))
        while len(connections) < group.size - 1:
            connection, _ = server.accept()
            connections[connection.recv(1)[0]] = connection
    return TcpExchange(range(group.size), connections, DEADLINE, never)


CHECKS = (
    check_exact,
    check_lossy_wires,
    check_bytes,
    check_a_lost_sum_is_seen,
    check_a_lost_row_is_seen,
    check_steps_of_one_dispatcher,
    check_two_steps_under_way,
    check_polls_between_change_nothing,
    check_a_tokens_sum_does_not_depend_on_its_home,
    check_native_over_gloo,
    check_group_over_tcp,
)


def main() -> None:
    torch.set_num_threads(1)
    ranks = Ranks()
    for check in CHECKS:
        check(ranks)
        if ranks.rank == 0:
            print(f"passed {check.__name__}", flush=True)
    ranks.close()
    from mpi4py import MPI

    MPI.Finalize()


if __name__ == "__main__":
    try:
        with torch.inference_mode():
            main()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        start_mpi().Abort(1)
