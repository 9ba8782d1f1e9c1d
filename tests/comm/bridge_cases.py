"""What the ranks of bridge_worker.py compute, and, on one rank, what must come of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from moe_comm.bridge import BridgeDispatcher
from moe_comm.bridge_routing import GroupPools
from moe_comm.bridge_rows import Wires
from moe_comm.dispatcher import Dispatcher, ExpertRows, PendingCombine, PendingDispatch
from moe_comm.local import LocalDispatcher
from moe_comm.routing import RoutingTable, token_keys
from moe_comm.transport.exchange import Exchange

Weights = list[list[float]]


@dataclass(frozen=True)
class Case:
    """Attributes:
    pools: the pool of each rank.
    slots: of each rank, the expert in each of its slots.
    num_tokens: of each rank.
    wires: "first pool, second pool" -> precision.
    """

    name: str
    pools: tuple[str, ...]
    slots: tuple[tuple[int, ...], ...]
    num_tokens: tuple[int, ...]
    wires: dict[tuple[str, str], str]
    num_experts: int = 20
    num_chosen: int = 4
    width: int = 24
    dtype: torch.dtype = torch.float32
    layer: int = 3
    seed: int = 0

    @cached_property
    def group_pools(self) -> GroupPools:
        return GroupPools(self.pools)

    @cached_property
    def weights(self) -> Weights:
        random = np.random.default_rng(self.seed + 1)
        return [random.uniform(0.1, 1, len(held)).tolist() for held in self.slots]

    @cached_property
    def table(self) -> RoutingTable:
        return RoutingTable(self.layer, self.slots, self.weights, self.num_experts)

    @property
    def links(self) -> Wires:
        return {frozenset(pair): wire for pair, wire in self.wires.items()}  # type: ignore[misc]

    def tokens(self, rank: int) -> "Tokens":
        return Tokens(self, rank)

    def bridge(self, group: Exchange, native: Exchange) -> BridgeDispatcher:
        return BridgeDispatcher(
            group, native, self.group_pools, {self.layer: self.table}, self.links
        )


class Tokens:
    """One rank's tokens, the same whenever and wherever they are made."""

    def __init__(self, case: Case, rank: int) -> None:
        generator = torch.Generator().manual_seed(case.seed * 100 + rank)
        num_tokens = case.num_tokens[rank]
        self.layer = case.layer
        self.x_TD = torch.randn(num_tokens, case.width, generator=generator).to(case.dtype)
        scores = torch.rand(num_tokens, case.num_experts, generator=generator)
        self.weights_TK, self.ids_TK = scores.topk(case.num_chosen, dim=1)
        token_ids = torch.randint(0, 1000, (num_tokens,), generator=generator)
        self.keys_T = token_keys(token_ids, torch.arange(num_tokens))

    def start(self, dispatcher: Dispatcher) -> PendingDispatch:
        return dispatcher.start(self.layer, self.x_TD, self.ids_TK, self.weights_TK, self.keys_T)

    def slot_TK(self, case: Case) -> np.ndarray:
        keys_T = self.keys_T.numpy().view(np.uint64)
        return np.asarray(case.table.choose_slots(self.ids_TK.numpy(), keys_T), dtype=np.int64)


def experts(rows: ExpertRows, held: Sequence[int]) -> torch.Tensor:
    """Each expert scales and shifts its rows; rows do not influence one another."""
    assert len(rows.counts_E) == len(held) and int(rows.counts_E.sum()) == len(rows.rows_RD)
    expert_R = torch.tensor(held, dtype=torch.int64).repeat_interleave(rows.counts_E)
    return apply(rows.rows_RD, expert_R)


def apply(rows_RD: torch.Tensor, expert_R: torch.Tensor) -> torch.Tensor:
    factor_R1 = expert_R[:, None].float() + 0.37
    return (rows_RD.float() * factor_R1 + factor_R1.sqrt()).to(rows_RD.dtype)


def compute(
    dispatcher: Dispatcher, pending: PendingDispatch, held: Sequence[int]
) -> PendingCombine:
    rows, handle = pending.finish()
    return dispatcher.start_combine(experts(rows, held), handle)


def on_one_rank(case: Case, tokens: Tokens) -> torch.Tensor:
    everything = tuple(range(case.num_experts))
    table = RoutingTable(case.layer, [everything], [[1.0] * len(everything)], case.num_experts)
    local = LocalDispatcher({case.layer: table})
    return compute(local, tokens.start(local), everything).finish()


def pool_by_pool(case: Case, tokens: Tokens) -> torch.Tensor:
    """Plain loops: for each token, each pool's experts by ascending id, and then the pools."""
    pool_G = np.repeat(case.group_pools.pool_N, case.table.slots_per_rank)
    pool_TK = pool_G[tokens.slot_TK(case)]
    y_TD = torch.zeros_like(tokens.x_TD)
    for token in range(len(tokens.x_TD)):
        total: torch.Tensor | None = None
        for pool in range(len(case.group_pools.order)):
            part: torch.Tensor | None = None
            for expert, choice in sorted(
                (e, k) for k, e in enumerate(tokens.ids_TK[token].tolist())
            ):
                if pool_TK[token, choice] == pool:
                    row_1D = apply(tokens.x_TD[token : token + 1], torch.tensor([expert]))
                    term_1D = row_1D.float() * tokens.weights_TK[token, choice]
                    part = term_1D if part is None else part + term_1D
            if part is not None:
                total = part if total is None else total + part
        assert total is not None
        y_TD[token] = total[0].to(case.dtype)
    return y_TD


def link_bytes(case: Case) -> dict[str, int]:
    """Payload bytes of one dispatch and combine on each link, counted token by token."""
    value_bytes = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
    sent = {f"{a}>{b}": 0 for a in case.pools for b in case.pools if a != b}
    pool_G = np.repeat(np.array(case.pools), case.table.slots_per_rank)
    for rank, home in enumerate(case.pools):
        for slots in case.tokens(rank).slot_TK(case):
            for other in {str(pool_G[slot]) for slot in slots} - {home}:
                wire = case.links[frozenset((home, other))]
                num_bytes = case.width * value_bytes[wire] + 4 * (wire == "int8")
                num_bytes += 8 * case.num_chosen
                sent[f"{home}>{other}"] += num_bytes + -num_bytes % 4
                sent[f"{other}>{home}"] += 4 * case.width
    return sent


TWO, THREE = ("gpu",) * 2 + ("host",) * 4, ("gpu", "gpu", "npu", "npu", "host", "host")
ALONE, MIXED = (
    ("gpu", "npu", "npu", "npu", "npu", "host"),
    ("gpu", "npu", "gpu", "host", "npu", "host"),
)
EVEN = tuple(tuple(range(rank, 20, 6)) for rank in range(6))
UNEVEN = (tuple(range(11)), (11, 3), (12, 13, 14, 5, 3), (15,), (16, 17, 3, 18), (19, 11))
EMPTY_RANKS = (tuple(range(9)), (), (), (9, 10, 11, 12, 13), tuple(range(14, 20)), ())
EMPTY_POOL = (tuple(range(13)), (13, 14), (15, 16, 1), (17, 18, 19, 2), (), ())
LAST_POOL_ONLY = ((), (), (), (), tuple(range(8)), tuple(range(8, 20)))
REPLICAS = tuple(tuple(range(rank % 2, 20, 2)) for rank in range(6))
SOME, FEW, NONE = (5, 33, 80, 1, 17, 66), (0, 0, 7, 0, 130, 0), (0,) * 6


def all_links(wire: str) -> dict[tuple[str, str], str]:
    return dict.fromkeys((("gpu", "npu"), ("gpu", "host"), ("npu", "host")), wire)


UNLIKE = {("gpu", "npu"): "bfloat16", ("gpu", "host"): "int8", ("npu", "host"): "float32"}
EXACT = all_links("float32")

EXACT_CASES = (
    Case("two pools", TWO, EVEN, SOME, EXACT),
    Case("three pools", THREE, EVEN, SOME, EXACT),
    Case("uneven slots with replicas", THREE, UNEVEN, SOME, EXACT, seed=1),
    Case("every expert in every pool", THREE, REPLICAS, SOME, EXACT, seed=2),
    Case("ranks without experts", THREE, EMPTY_RANKS, SOME, EXACT, seed=3),
    Case("a pool without experts", THREE, EMPTY_POOL, SOME, EXACT, seed=4),
    Case("experts apart", THREE, LAST_POOL_ONLY, (5, 33, 80, 1, 0, 0), EXACT, seed=5),
    Case("pools of one rank", ALONE, UNEVEN, SOME, EXACT, seed=6),
    Case("pools interleaved", MIXED, UNEVEN, SOME, EXACT, seed=7),
    Case("few ranks with tokens", THREE, UNEVEN, FEW, EXACT, seed=8),
    Case("no tokens", THREE, UNEVEN, NONE, EXACT, seed=9),
    Case("odd width, one expert", TWO, EVEN, SOME, EXACT, width=7, num_chosen=1, seed=10),
    Case("bfloat16", THREE, UNEVEN, SOME, all_links("bfloat16"), dtype=torch.bfloat16, seed=11),
    Case("float16", MIXED, REPLICAS, SOME, all_links("float16"), dtype=torch.float16, seed=12),
)
# With the largest error of a value, as a share of the largest magnitude in its row.
LOSSY_CASES = (
    (Case("bfloat16 wire", THREE, UNEVEN, SOME, all_links("bfloat16"), seed=13), 2**-8),
    (Case("float16 wire", THREE, UNEVEN, SOME, all_links("float16"), seed=14), 2**-11),
    (Case("int8 wire", THREE, UNEVEN, SOME, all_links("int8"), width=27, seed=15), 0.5 / 127),
    (Case("unlike wires", MIXED, UNEVEN, SOME, UNLIKE, width=27, seed=16), 0.5 / 127),
)
STEPS = tuple(replace(EXACT_CASES[2], num_tokens=each, seed=20) for each in (SOME, FEW, NONE, SOME))
