"""Experts move between two real ranks while they generate: the answers do not change."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkpoints import make_checkpoint
from expert_plans import write_random_plan
from live_server import server_config
from moe_placement.plan import PoolPlan

SCRIPT = Path(__file__).with_name("move_rank.py")
# To read, and again to pack, less than two experts.
BYTES_PER_STEP = 65536
CASES = [
    {"name": "stay", "changes": []},
    {"name": "move", "changes": [[4, "new", 1]]},
    {"name": "idle", "changes": [[36, "new", 1]], "idle": True},
    {"name": "wrong", "changes": [[4, "new", 1]], "fault": "wrong slots"},
    {"name": "gone", "changes": [[4, "new", 1], [12, "order", 2]], "fault": "no checkpoint"},
    {"name": "stale", "changes": [[4, "new", 1], [5, "order", 2]]},
]


LINK = {"between": ["host", "other"], "bandwidth": "1GB/s"}


@pytest.fixture(
    scope="module", params=["one pool", pytest.param("two pools", marks=pytest.mark.slow)]
)
def answers(
    request: Any, tmp_path_factory: pytest.TempPathFactory, mpirun: Any
) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("moving")
    checkpoint = make_checkpoint("deepseek_v3", folder / "checkpoint")
    pools, config = (), server_config(checkpoint, 2)
    if request.param == "two pools":
        names = ("host", "other")
        pools = tuple(
            PoolPlan(name, "cpu", (rank,), weight_format="float32")
            for rank, name in enumerate(names)
        )
        config["pools"] = [{**config["pools"][0], "name": name, "ranks": 1} for name in names]
        config["links"] = [LINK]
    write_random_plan(folder / "old.json", checkpoint, 2, seed=1, pools=pools)
    write_random_plan(folder / "new.json", checkpoint, 2, seed=2, pools=pools)
    write_in_another_order(folder, json.loads((folder / "old.json").read_text()))
    config["placement"] = {
        "plan": str(folder / "old.json"),
        "rebalance_every": "3600s",
        "move_bytes_per_step": BYTES_PER_STEP,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "cases.json").write_text(json.dumps(CASES))
    done = mpirun(2, ["-W", "error", str(SCRIPT), str(folder)], 100)
    assert done.returncode == 0, done.stderr[-4000:]
    return {
        each["name"]: each["ranks"] for each in json.loads((folder / "answer.json").read_text())
    }


def write_in_another_order(folder: Path, plan: dict[str, Any]) -> None:
    """The same experts on the same ranks, in other slots: there is nothing to load."""
    for layer in plan["layers"].values():
        for rows in (layer["slots"], layer["weights"]):
            for row in rows:
                row.reverse()
    (folder / "order.json").write_text(json.dumps(plan))


def tokens(ranks: list[Any], name: str = "first") -> list[Any]:
    return [rank["tokens"][name] for rank in ranks]


def test_tokens_are_the_same_across_a_switch(answers: dict[str, list[Any]]) -> None:
    moved = answers["move"]
    assert tokens(moved) == tokens(answers["stay"])
    assert [rank["epoch"] for rank in moved] == [1, 1]
    assert [rank["epoch"] for rank in answers["stay"]] == [0, 0]
    assert all(rank["moved_bytes"] > 0 and rank["given_up"] == 0 for rank in moved)
    # It took no step more, and the plan was not ready at once.
    assert [rank["num_steps"] for rank in moved] == [rank["num_steps"] for rank in answers["stay"]]


def test_ranks_that_sleep_move_their_experts_and_wake_to_switch(
    answers: dict[str, list[Any]],
) -> None:
    idle = answers["idle"]
    assert [rank["epoch"] for rank in idle] == [1, 1]
    assert tokens(idle) == tokens(idle, "second") == tokens(answers["stay"])


def test_a_rank_with_a_wrong_table_after_the_switch_changes_tokens(
    answers: dict[str, list[Any]],
) -> None:
    assert [rank["epoch"] for rank in answers["wrong"]] == [1, 1]
    right, wrong = tokens(answers["stay"]), tokens(answers["wrong"])
    assert wrong[1] != right[1]
    assert wrong[1][:4] == right[1][:4]


def test_where_one_rank_cannot_read_all_keep_the_old_plan(answers: dict[str, list[Any]]) -> None:
    """And run the next one, which needs nothing from the checkpoint."""
    gone = answers["gone"]
    assert tokens(gone) == tokens(answers["stay"])
    assert [rank["given_up"] for rank in gone] == [1, 1]
    assert [rank["epoch"] for rank in gone] == [2, 2]


def test_a_second_plan_before_the_first_is_in_force_is_given_up(
    answers: dict[str, list[Any]],
) -> None:
    stale = answers["stale"]
    assert tokens(stale) == tokens(answers["stay"])
    assert [rank["given_up"] for rank in stale] == [2, 2]
    assert [rank["epoch"] for rank in stale] == [0, 0]
