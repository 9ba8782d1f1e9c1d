"""As time passes the solver keeps its lead on unlike devices, and moves less than EPLB."""

import pytest
from moe_placement.bench.over_time import over_time


@pytest.mark.slow
def test_unlike_devices_over_time() -> None:
    rows = {
        (row["devices"], row["placer"]): row
        for row in over_time(num_layers=4, num_tokens=4096, num_plans=3)
    }
    mixed = {placer: row for (devices, placer), row in rows.items() if devices != "32 h20"}
    assert mixed.pop("eplb")["over_eplb"] == 1.0
    for row in mixed.values():
        assert row["over_eplb"] < 0.8
    assert mixed["ours, new weights only"]["gb_moved"] == 0.0
    assert mixed["ours"]["gb_moved"] < mixed["ours, from nothing"]["gb_moved"]
    eplb_bytes = rows["32 h20", "eplb"]["gb_moved"]
    assert rows["32 h20", "ours, 1/4 of eplb's bytes"]["gb_moved"] <= eplb_bytes / 4
    assert max(row["over_eplb"] for row in rows.values()) < 1.1
    for placer in ("ours", "ours, from nothing"):
        assert rows["32 h20", placer]["over_eplb"] < 1.005
