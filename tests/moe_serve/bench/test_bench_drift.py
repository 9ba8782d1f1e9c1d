"""The benchmark of drifting load: real servers, once with rebalancing and once without."""

from pathlib import Path

import pytest

from moe_serve.bench.drift import DriftJob, drift
from moe_serve.demo import write_checkpoint
from moe_serve.demo_config import demo_config

pytestmark = pytest.mark.slow

HARDWARE = Path(__file__).parents[3] / "configs" / "devices" / "gpu_like.yaml"


def test_the_plan_follows_in_one_run_and_stays_in_the_other(tmp_path: Path) -> None:
    model = tmp_path / "demo"
    write_checkpoint(model, demo_config())
    job = DriftJob(
        model=model,
        hardware=HARDWARE,
        num_phases=2,
        phase_seconds=8.0,
        rebalance_every=1.0,
        num_probed=32,
        vocabulary=3,
    )
    rows = drift(job, tmp_path)
    assert [(row["run"], row["phase"]) for row in rows] == [
        ("plan stays", 0),
        ("plan stays", 1),
        ("rebalancing", 0),
        ("rebalancing", 1),
    ]
    assert all(row["tokens_per_second"] > 0 for row in rows)
    assert [row["epoch"] for row in rows[:2]] == [0, 0]
    assert rows[3]["epoch"] > 0 and rows[3]["moved_bytes"] > 0
