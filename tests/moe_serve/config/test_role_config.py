"""Roles that are `auto`, and the workload that they are decided by: what is refused."""

from pathlib import Path

import pytest

from moe_serve.config.load import load_config
from moe_serve.config.tree import Config
from moe_serve.errors import ConfigError

CONFIG = """
model: {path: demo}
pools:
  - {name: a, device: cpu, role: auto, hardware: h20}
  - {name: b, device: cpu, hardware: h20}
placement: {workload: {rate: 2/s, prompt_tokens: 1000, output_tokens: 50, slo: {ttft: 2s}}}
"""


def load(tmp_path: Path, *overrides: str) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return load_config(path, overrides)


def test_a_workload_is_read_with_its_units(tmp_path: Path) -> None:
    workload = load(tmp_path).placement.workload
    assert workload.is_given
    assert (workload.rate, workload.slo.ttft, workload.slo.tpot) == (2.0, 2.0, 0.0)
    plain = load(tmp_path, "placement.workload.rate=0.5")
    assert plain.placement.workload.rate == 0.5


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("placement.workload={}", r"pools\[0\]\.role: auto is decided by the requests"),
        ("placement.workload.rate=0", r"placement\.workload\.rate: this key is missing or 0"),
        ("placement.workload.output_tokens=0", r"workload\.output_tokens: this key is missing"),
        ("placement.workload.rate=2/min", r"workload\.rate: expected a number or a rate such as"),
        ("placement.workload.slo.percentile=2", r"slo\.percentile: expected at least 0 and at"),
        ("pools.1.hardware=''", r"pools\[1\]\.hardware: pools\[0\]\.role is auto"),
        ("placement.plan=plan.json", r"pools\[0\]\.role: auto is for placement\.plan: auto"),
        ("pools.0.role=any", r"pools\[0\]\.role: expected one of auto, both, prefill"),
    ],
)
def test_what_roles_cannot_be_decided_by_is_refused(
    tmp_path: Path, override: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, override)


def test_roles_that_are_given_need_no_workload(tmp_path: Path) -> None:
    config = load(tmp_path, "pools.0.role=both", "placement.workload={}", "pools.1.hardware=''")
    assert not config.placement.workload.is_given
