"""Narrow weights are served when the self-check finds them near enough, and refused otherwise."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from fault_runs import Run
from live_server import mpirun, server_config

from moe_serve.errors import AgreedError
from moe_serve.llm import LLM


def overrides(path: Path, weights: str, max_kl: float) -> list[str]:
    return [
        f"model={{path: {path}, dtype: float32}}",
        f"pools=[{{name: host, device: cpu, weights: {weights}, threads: 1}}]",
        "cache={page_size: 16, num_pages: 64}",
        f"accuracy={{max_kl: {max_kl}}}",
    ]


def test_int8_is_near_enough_and_no_nearer(checkpoint: Callable[..., Path]) -> None:
    path = checkpoint("qwen3_moe")
    demo = Path(__file__).parents[3] / "configs" / "demo.yaml"
    with LLM(demo, overrides(path, "int8", 0.05)) as llm:
        (completion,) = llm.generate([[5, 6, 7]])
        assert len(completion.token_ids) == 16
    with pytest.raises(AgreedError, match=r"nats per token .* 1e-05 is the most allowed"):
        LLM(demo, overrides(path, "int8", 1e-5))
    with LLM(demo, overrides(path, "float32", 1e-5)):
        pass


@pytest.mark.slow
def test_a_wire_that_loses_too_much_is_refused_by_all_ranks(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    pools = [
        {"name": "one", "device": "cpu", "threads": 1},
        {"name": "two", "device": "cpu", "threads": 1, "role": "experts"},
    ]
    config = server_config(
        checkpoint("qwen3_moe"),
        2,
        pools=pools,
        links=[{"between": ["one", "two"], "bandwidth": "1GB/s", "wire": "int8"}],
        accuracy={"max_kl": 1e-9},
    )
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "moe_serve.cli", "--config", str(file)]
    run = Run(mpirun(2, *command), tmp_path)
    try:
        assert run.wait_for_end(60) == 2
        (error,) = run.error_lines
    finally:
        run.kill()
    assert "accuracy.max_kl" in error and "use a wider weight format or wire" in error
