"""The benchmark of drifting load: real servers, once with rebalancing and once without."""

from pathlib import Path

import psutil
import pytest

from moe_serve.bench.drift import drift, emulated_drift

pytestmark = pytest.mark.slow


def test_the_plan_follows_in_one_run_and_is_faster_for_it(tmp_path: Path) -> None:
    """Time goes so slowly that ranks keep what is declared of them beside other work."""
    job = emulated_drift(tmp_path, 12.0, num_phases=2, phase_seconds=14.0)
    *rows, gain, ratio = drift(job, tmp_path)
    assert [(row["run"], row["phase"]) for row in rows] == [
        ("plan stays", 0),
        ("plan stays", 1),
        ("rebalancing", 0),
        ("rebalancing", 1),
    ]
    assert [row["epoch"] for row in rows[:2]] == [0, 0]
    assert rows[3]["epoch"] > 0 and rows[3]["moved MB"] > 0
    # Once experts have moved it is about 1.4; the seconds before that count as well.
    assert gain["measured"] > 1.05
    assert rows[3]["load / mean"] < rows[1]["load / mean"]
    moved = [row for row in rows if row["gaps moving"]]
    assert moved and {row["run"] for row in moved} == {"rebalancing"}
    assert all(row["p99 moving ms"] > 0 < row["p99 before ms"] for row in moved)
    assert ratio["measured"] > 0
    assert not psutil.Process().children(recursive=True)
