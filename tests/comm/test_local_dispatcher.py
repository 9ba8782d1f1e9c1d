"""LocalDispatcher against a dense reference that runs every expert on every token."""

import pytest
import torch
from moe_comm.collective import CollectiveDispatcher
from moe_comm.local import LocalDispatcher
from moe_comm.routing import RoutingTable, token_keys
from moe_comm.transport.local import LocalExchange

NUM_EXPERTS, NUM_CHOSEN, WIDTH = 12, 3, 48


def inputs(
    num_tokens: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_tokens)
    x_TD = torch.randn(num_tokens, WIDTH, generator=generator).to(dtype)
    scores = torch.rand(num_tokens, NUM_EXPERTS, generator=generator)
    weights_TK, ids_TK = scores.topk(NUM_CHOSEN, dim=1)
    keys_T = token_keys(torch.arange(num_tokens), torch.arange(num_tokens))
    return x_TD, ids_TK, weights_TK, keys_T


def dispatcher(slots: list[int] | None = None) -> LocalDispatcher:
    slots = slots or list(range(NUM_EXPERTS))
    return LocalDispatcher({5: RoutingTable(5, [slots], [[1.0] * len(slots)], NUM_EXPERTS)})


def matrices() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(NUM_EXPERTS, WIDTH, WIDTH, generator=generator) / WIDTH**0.5


def dense(x_TD: torch.Tensor, ids_TK: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
    gate_TE = torch.zeros(len(x_TD), NUM_EXPERTS).scatter_(1, ids_TK, weights_TK)
    return torch.einsum("td,edf,te->tf", x_TD.float(), matrices(), gate_TE)


def sparse(
    local: LocalDispatcher,
    slots: list[int],
    x_TD: torch.Tensor,
    ids_TK: torch.Tensor,
    weights_TK: torch.Tensor,
    keys_T: torch.Tensor,
    dropped_row: int | None = None,
) -> torch.Tensor:
    rows, handle = local.start(5, x_TD, ids_TK, weights_TK, keys_T).finish()
    parts = rows.rows_RD.split(rows.counts_E.tolist())
    y_RD = torch.cat(
        [
            (part.float() @ matrices()[e]).to(x_TD.dtype)
            for part, e in zip(parts, slots, strict=True)
        ]
    )
    if dropped_row is not None:
        y_RD[dropped_row] = 0
    return local.start_combine(y_RD, handle).finish()


@pytest.mark.parametrize("num_tokens", [0, 1, 7, 64, 65, 300])
@pytest.mark.parametrize("slots", [list(range(12)), [3, 1, 0, 2, 11, 10, 9, 8, 7, 6, 5, 4]])
def test_equals_the_dense_reference(num_tokens: int, slots: list[int]) -> None:
    x_TD, ids_TK, weights_TK, keys_T = inputs(num_tokens)
    y_TD = sparse(dispatcher(slots), slots, x_TD, ids_TK, weights_TK, keys_T)
    torch.testing.assert_close(y_TD, dense(x_TD, ids_TK, weights_TK), atol=1e-5, rtol=1e-5)


def test_one_dropped_row_is_seen() -> None:
    x_TD, ids_TK, weights_TK, keys_T = inputs(9)
    slots = list(range(NUM_EXPERTS))
    expected = dense(x_TD, ids_TK, weights_TK)
    for dropped_row in range(9 * NUM_CHOSEN):
        y_TD = sparse(dispatcher(), slots, x_TD, ids_TK, weights_TK, keys_T, dropped_row)
        wrong = (y_TD - expected).abs().amax(1) > 1e-3
        assert wrong.sum() == 1, f"row {dropped_row} changed {wrong.sum()} tokens"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_added_in_float32(dtype: torch.dtype) -> None:
    x_TD, ids_TK, weights_TK, keys_T = inputs(33, dtype)
    y_TD = sparse(dispatcher(), list(range(NUM_EXPERTS)), x_TD, ids_TK, weights_TK, keys_T)
    ids_TK, order = ids_TK.sort(dim=1)
    total = torch.zeros(33, WIDTH)
    for k in range(NUM_CHOSEN):
        rows = torch.einsum("td,tdf->tf", x_TD.float(), matrices()[ids_TK[:, k]]).to(dtype).float()
        total += rows * weights_TK.gather(1, order)[:, k, None]
    assert y_TD.dtype == dtype
    torch.testing.assert_close(y_TD.float(), total, atol=2e-2, rtol=2e-2)
    assert ((y_TD.float() - total).norm() / total.norm()).item() < torch.finfo(dtype).eps


def test_rows_are_sorted_by_slot_with_counts_on_the_host() -> None:
    slots = [5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 10, 11]
    x_TD, ids_TK, weights_TK, keys_T = inputs(40)
    rows, _ = dispatcher(slots).start(5, x_TD, ids_TK, weights_TK, keys_T).finish()
    assert rows.counts_E.tolist() == [int((ids_TK == expert).sum()) for expert in slots]
    expected = [x_TD[(ids_TK == expert).any(1)] for expert in slots]
    assert torch.equal(rows.rows_RD, torch.cat(expected))


def test_the_sum_of_a_token_does_not_depend_on_its_batch() -> None:
    x_TD, ids_TK, weights_TK, keys_T = inputs(200)
    rows, handle = dispatcher().start(5, x_TD, ids_TK, weights_TK, keys_T).finish()
    together = dispatcher().start_combine(rows.rows_RD * 0.3, handle).finish()
    for part in (slice(0, 3), slice(3, 60), slice(60, 200)):
        args = (x_TD[part], ids_TK[part], weights_TK[part], keys_T[part])
        rows, handle = dispatcher().start(5, *args).finish()
        assert torch.equal(
            dispatcher().start_combine(rows.rows_RD * 0.3, handle).finish(), together[part]
        )


def test_a_plan_for_more_ranks_is_refused() -> None:
    table = RoutingTable(2, [[0], [1]], [[1.0], [1.0]], 2)
    with pytest.raises(ValueError, match="layer 2: the plan places experts on 2 ranks"):
        LocalDispatcher({2: table})


def test_nothing_is_sent() -> None:
    local = dispatcher()
    sparse(local, list(range(NUM_EXPERTS)), *inputs(5))
    assert local.bytes_sent == 0


def test_the_sum_is_in_order_of_expert_id_bit_for_bit() -> None:
    x_TD, ids_TK, weights_TK, keys_T = inputs(100)
    slots = [7, 6, 5, 4, 3, 2, 1, 0, 11, 10, 9, 8]
    rows, handle = dispatcher(slots).start(5, x_TD, ids_TK, weights_TK, keys_T).finish()
    factor_R1 = torch.tensor(slots).repeat_interleave(rows.counts_E)[:, None] + 0.37
    y_TD = dispatcher(slots).start_combine(rows.rows_RD * factor_R1, handle).finish()
    ascending, descending = (
        in_order(x_TD, *(each.gather(1, order) for each in (ids_TK, weights_TK)))
        for order in (ids_TK.argsort(dim=1), ids_TK.argsort(dim=1, descending=True))
    )
    assert torch.equal(y_TD, ascending)
    assert not torch.equal(y_TD, descending)


def in_order(x_TD: torch.Tensor, ids_TK: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
    total = x_TD * (ids_TK[:, :1] + 0.37) * weights_TK[:, :1]
    for k in range(1, NUM_CHOSEN):
        total = total + x_TD * (ids_TK[:, k : k + 1] + 0.37) * weights_TK[:, k : k + 1]
    return total


@pytest.mark.parametrize("num_tokens", [0, 20])
def test_a_collective_of_one_rank_is_local(num_tokens: int) -> None:
    table = RoutingTable(5, [list(range(NUM_EXPERTS))], [[1.0] * NUM_EXPERTS], NUM_EXPERTS)
    spread = CollectiveDispatcher(LocalExchange(), {5: table})
    results = []
    for each in (spread, dispatcher()):
        rows, handle = each.start(5, *inputs(num_tokens)).finish()
        results.append(each.start_combine(rows.rows_RD * 0.7, handle).finish())
    assert torch.equal(*results)
    assert spread.bytes_sent == 0
