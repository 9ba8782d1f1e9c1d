"""One side of handovers is lost and started again: prompts are handed over as before."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from checkpoints import rewrite_json
from fault_runs import Run
from world_runs import (
    PROMPTS,
    Worlds,
    begin,
    end_well,
    ended,
    kill,
    metric,
    range_of,
    tokens,
    wait_for_metric,
)

pytestmark = pytest.mark.slow

ALL = range_of(0, 12)
APART = {"scheduler": {"max_local_prefill": 1}}
COMEBACK_SECONDS = 40.0


def handovers(url: str, rank: int = 0) -> float:
    return metric(url, f'moe_serve_handovers_total{{rank="{rank}"}}')


def check_handovers(url: str, expected: list[list[str]], number: int) -> None:
    """Right answers come, to so many prompts that another rank computed."""
    before = handovers(url)
    assert tokens(url) == expected
    assert handovers(url) == before + number


def test_a_prefill_pool_comes_back_under_open_streams(worlds: Worlds) -> None:
    url, (front, far) = worlds.start(
        [("front", 1, "decode", [ALL]), ("far", 1, "prefill", [ALL])], **APART
    )
    expected = tokens(url)
    assert handovers(url) == len(PROMPTS)
    interrupted = begin(url)
    kill(far)
    assert ended(interrupted) == expected
    assert tokens(url) == expected
    check_handovers(url, expected, 0)
    again = worlds.start_again("far")
    while metric(url, "moe_serve_lost_ranks"):
        assert again.seconds_since_start() < COMEBACK_SECONDS, again.errors
        assert tokens(url) == expected
    assert metric(url, "moe_serve_membership_epoch") == 2
    check_handovers(url, expected, len(PROMPTS))
    assert metric(url, 'moe_serve_prompt_tokens_total{rank="1"}') > 0
    end_well(front, again)


def test_a_decode_pool_comes_back_and_is_called_where_it_is(worlds: Worlds) -> None:
    """The prefill ranks know its new address: cut connections are made again."""
    url, (front, far, early) = worlds.start(
        [
            ("front", 1, "decode", [ALL]),
            ("far", 1, "decode", [ALL]),
            ("early", 1, "prefill", [ALL]),
        ],
        **APART,
    )
    expected = tokens(url)
    kill(far)
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 1, 20.0)
    assert tokens(url) == expected
    far = worlds.start_again("far")
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 0, COMEBACK_SECONDS)
    assert tokens(url) == expected
    wait_for_metric(url, 'moe_serve_handovers_total{rank="1"}', lambda number: number > 0, 10.0)
    # The other side goes and comes: it finds both where they are by now.
    kill(early)
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 1, 20.0)
    early = worlds.start_again("early")
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 0, COMEBACK_SECONDS)
    before = [handovers(url, rank) for rank in (0, 1)]
    assert tokens(url) == expected
    assert sum(handovers(url, rank) for rank in (0, 1)) == sum(before) + len(PROMPTS)
    end_well(front, far, early)


def test_ranks_that_share_attention_come_back(worlds: Worlds) -> None:
    """Each holds its own heads again."""
    halves = [range_of(0, 6), range_of(6, 12)]
    url, (front, far) = worlds.start(
        [("front", 2, "decode", halves), ("far", 2, "prefill", halves)], shards=2, **APART
    )
    expected = tokens(url)
    assert handovers(url) == len(PROMPTS)
    interrupted = begin(url)
    kill(far)
    assert ended(interrupted) == expected
    far = worlds.start_again("far")
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 0, COMEBACK_SECONDS)
    check_handovers(url, expected, len(PROMPTS))
    end_well(front, far)


@pytest.fixture
def changing(
    small: Path,
    tmp_path: Path,
    folder: Path,
    start_command: Callable[[Sequence[str]], Run],
    write_config: Callable[[Mapping[str, Any]], Path],
) -> Iterator[tuple[Worlds, Path]]:
    """Worlds of a checkpoint that may be changed, and where it is."""
    path = Path(shutil.copytree(small, tmp_path / "changing"))
    worlds = Worlds(path, folder, start_command, write_config)
    yield worlds, path
    worlds.end()


def test_one_that_hands_over_something_else_is_turned_away(changing: tuple[Worlds, Path]) -> None:
    """Meanwhile its checkpoint has become another model's."""
    worlds, path = changing
    url, (front, far) = worlds.start(
        [("front", 1, "decode", [ALL]), ("far", 1, "prefill", [ALL])], **APART
    )
    expected = tokens(url)
    kill(far)
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 1, 20.0)
    before = json.loads((path / "config.json").read_text())
    rewrite_json(path / "config.json", lambda content: content | {"rms_norm_eps": 0.25})
    other = worlds.start_again("far")
    assert other.wait_for_end(60.0) == 2, other.errors
    (line,) = other.error_lines
    assert line.startswith("the mpirun of pool far")
    assert "reads config.json of model.path with digest" in line
    check_handovers(url, expected, 0)
    assert metric(url, "moe_serve_lost_ranks") == 1
    rewrite_json(path / "config.json", lambda content: before)
    again = worlds.start_again("far")
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 0, COMEBACK_SECONDS)
    check_handovers(url, expected, len(PROMPTS))
    end_well(front, again)
