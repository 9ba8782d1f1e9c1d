"""One rank of the dispatch benchmark; rank 0 prints JSON.

Shape legend: T tokens, D width, K experts chosen, R rows.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from moe_comm.collective import CollectiveDispatcher
from moe_comm.dispatcher import Dispatcher
from moe_comm.local import LocalDispatcher
from moe_comm.routing import RoutingTable, token_keys
from moe_comm.transport.exchange import Exchange
from moe_comm.transport.torch_dist import open_torch_exchange
from moe_comm.transport.world import World, open_world
from moe_devices.threads import bind_threads
from moe_placement.equal_split import equal_split
from moe_placement.plan import PoolPlan

from moe_serve.control.meeting.addresses import host_address
from moe_serve.control.meeting.world import LaunchedWorld, launched_world

_DEADLINE = 60.0
# What the world itself opens, and closes.
_NATIVE = ("mpi", "local")


def main() -> None:
    parameters = json.loads(sys.argv[1])
    launch = launched_world()
    bind_threads(launch.local_rank, launch.local_size, 1)
    world = open_world(launch)
    exchange = _exchange(parameters["collective"], world, launch)
    dispatcher = _dispatcher(exchange, launch.size, parameters)
    rows = [
        _measure(exchange, dispatcher, launch.size, num_tokens, parameters)
        for num_tokens in parameters["tokens"]
    ]
    if launch.rank == 0:
        print(json.dumps(rows), flush=True)
    if parameters["collective"] not in _NATIVE:
        exchange.close()
    world.close()


def _never() -> bool:
    return False


def _exchange(collective: str, world: World, launch: LaunchedWorld) -> Exchange:
    exchange = world.open_exchange(range(launch.size), _DEADLINE, _never)
    if collective in _NATIVE:
        return exchange
    cpu = torch.device("cpu")
    return open_torch_exchange(exchange, host_address(launch), collective, cpu, _DEADLINE, _never)


def _dispatcher(exchange: Exchange, size: int, parameters: Mapping[str, Any]) -> Dispatcher:
    pool = PoolPlan("host", "cpu", tuple(range(size)))
    placed = equal_split("bench", parameters["experts"], [0], [pool]).layers[0]
    tables = {0: RoutingTable(0, placed.slots, placed.weights, parameters["experts"])}
    return LocalDispatcher(tables) if size == 1 else CollectiveDispatcher(exchange, tables)


def _measure(
    exchange: Exchange,
    dispatcher: Dispatcher,
    size: int,
    num_tokens: int,
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(exchange.rank)
    x_TD = torch.randn(num_tokens, parameters["width"], generator=generator)
    x_TD = x_TD.to(getattr(torch, parameters["dtype"]))
    scores = torch.rand(num_tokens, parameters["experts"], generator=generator)
    weights_TK, ids_TK = scores.topk(parameters["chosen"])
    keys_T = token_keys(torch.arange(num_tokens), torch.arange(num_tokens))

    def there_and_back() -> None:
        received, handle = dispatcher.start(0, x_TD, ids_TK, weights_TK, keys_T).finish()
        dispatcher.start_combine(received.rows_RD, handle).finish()

    num_rows = num_tokens * parameters["chosen"]
    rows_RD = torch.zeros(num_rows, parameters["width"], dtype=x_TD.dtype)
    share = [num_rows // size] * (size - 1)
    counts = [num_rows - sum(share), *share]

    def bare() -> None:
        exchange.start_rows(rows_RD, counts, counts).finish()
        exchange.start_rows(rows_RD, counts, counts).finish()

    before = dispatcher.bytes_sent
    whole = _median(exchange, there_and_back, parameters["repeats"])
    sent = (dispatcher.bytes_sent - before) / (parameters["repeats"] + 1)
    return {
        "ranks": size,
        "collective": parameters["collective"],
        "tokens": num_tokens,
        "dispatch_and_combine_us": whole * 1e6,
        "bare_exchange_us": _median(exchange, bare, parameters["repeats"]) * 1e6,
        "kilobytes_sent": sent / 1e3,
    }


def _median(exchange: Exchange, action: Callable[[], None], repeats: int) -> float:
    action()
    seconds = []
    for _ in range(repeats):
        exchange.barrier()
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
