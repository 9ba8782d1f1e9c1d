"""Tables of a solution and their figures."""

import json

import numpy as np
import pytest
from moe_placement.plan import Plan
from moe_placement.report.expert_load import load_spread
from moe_placement.report.figures import money, rate, seconds
from moe_placement.report.solution_json import solution_values
from moe_placement.report.solution_tables import (
    alternatives_table,
    choices_table,
    memory_table,
    pools_table,
    summary,
)
from moe_placement.report.table import Table
from moe_placement.solver.solution import Solution


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.5, "1.5 s"), (0.0204, "20.4 ms"), (3.2e-6, "3.2 us"), (4e-9, "0.004 us"), (0.0, "0 s")],
)
def test_seconds_have_a_unit_that_fits(value: float, text: str) -> None:
    assert seconds(value) == text


def test_rates_and_money() -> None:
    assert (rate(12345.6), rate(3.14159)) == ("12,346", "3.14")
    assert (money(None), money(1234.5)) == ("no price", "1,234.50")


def test_markdown_escapes_bars() -> None:
    text = Table("t", ("a|b", "n"), (("x|y", "1"),), note="why").markdown()
    assert text == "**t**\n\n| a\\|b | n |\n| --- | ---: |\n| x\\|y | 1 |\n\nwhy"


def test_alternatives_say_why_they_lose(solution: Solution) -> None:
    first, second = alternatives_table(solution.alternatives).rows
    assert first[:4] == ("together 1 x (hopper + ascend)", "chosen", "2", "5.50")
    assert first[-1] == "2,000"
    assert second[1:4] == ("TPOT is 50 ms, 40 ms were asked for", "3", "no price")


def test_every_table_has_as_many_cells_as_its_header(solution: Solution) -> None:
    tables = (
        alternatives_table(solution.alternatives),
        choices_table(solution),
        pools_table(solution.plan),
        memory_table(solution.memories),
    )
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.header)}, table.title


def test_memory_is_of_the_fullest_rank_and_adds_up(solution: Solution) -> None:
    table = memory_table(solution.memories)
    assert [row[0] for row in table.rows] == ["hopper", "ascend"]
    fuller = memory_table((*solution.memories, solution.memories[0]))
    assert fuller.rows == table.rows
    experts = solution.memories[0].experts / 2**30
    assert table.rows[0][1] == f"{experts:.1f} GiB"


def test_pools_tell_experts_of_a_rank(solution: Solution) -> None:
    assert [row[-1] for row in pools_table(solution.plan).rows] == ["5", "4"]


def test_the_summary_has_bound_and_gap(solution: Solution) -> None:
    found = dict(summary(solution))
    assert found["what binds"] == "expert bytes of ascend"
    assert found["full decode step"].startswith("21 ms; ")
    assert found["full decode step"].endswith("20 ms (gap 5.0%)")


def test_json_holds_plain_values(solution: Solution) -> None:
    values = solution_values(solution)
    found = json.loads(json.dumps(values))
    assert found == json.loads(json.dumps(found))
    assert found["gap"] == pytest.approx(0.05)
    assert found["alternatives"][0]["name"].startswith("together")
    assert found["memory"][0]["total"] == solution.memories[0].total
    assert found["pools"][1]["weight_format"] == "int8"


def test_load_is_spread_by_weights(plan: Plan) -> None:
    shares_LE = np.tile([0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], (len(plan.layers), 1))
    spread = load_spread(plan, shares_LE)
    assert spread.equal_LN[0] == pytest.approx([1.2, 0.8])
    assert spread.planned_LN[0] == pytest.approx([2 * 0.625, 2 * 0.375])
    assert spread.layers == tuple(sorted(plan.layers))
