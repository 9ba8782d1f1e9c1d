"""What `auto` becomes, and that it is said."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from moe_devices.cpu import CpuDevice
from moe_devices.cuda import CudaDevice

from moe_serve.config.load import load_config
from moe_serve.config.resolve import choices, log_choices, resolve
from moe_serve.config.tree import Config
from moe_serve.config.unserved import require_served
from moe_serve.config.validate import COLLECTIVES
from moe_serve.errors import ConfigError, UnsupportedError

TEXT = "model: {path: /models/Tiny-MoE}\npools: [{name: host, device: cpu, ranks: 2}]\n"
MODEL = {"torch_dtype": "bfloat16", "max_position_embeddings": 4096}


@pytest.fixture
def config(write: Callable[[str], Path]) -> Callable[..., Config]:
    return lambda *overrides: load_config(write(TEXT), overrides)


def test_auto_follows_the_model_the_device_and_the_host(config: Callable[..., Config]) -> None:
    before = config()
    after = resolve(before, MODEL, 3)
    model, pool = after.models[0], after.pools[0]
    assert (model.name, model.dtype, model.max_context) == ("Tiny-MoE", "bfloat16", 4096)
    assert (pool.weights, pool.collective, pool.threads) == ("bfloat16", "mpi", 3)
    assert before == config()
    assert resolve(after, MODEL, 5) == after


def test_the_native_collective_of_a_gpu_is_nccl(config: Callable[..., Config]) -> None:
    assert resolve(config("pools.0.device=cuda"), MODEL, 1).pools[0].collective == "nccl"


def test_what_the_config_says_stays(config: Callable[..., Config]) -> None:
    said = config(
        "model.name=tiny",
        "model.dtype=float32",
        "model.max_context=100",
        "pools.0.weights=float32",
        "pools.0.collective=gloo",
        "pools.0.threads=1",
    )
    assert resolve(said, MODEL, 8) == said


def test_deterministic_chooses_one_thread(config: Callable[..., Config]) -> None:
    before = config("deterministic=true")
    after = resolve(before, MODEL, 8)
    assert ("pools[0].threads", 1) in choices(before, after)


def test_pools_that_say_the_same_collective_go_together(config: Callable[..., Config]) -> None:
    pools = "pools=[{name: a, device: cpu, collective: mpi}, {name: b, device: cpu}]"
    resolved = resolve(config(pools), MODEL, 1)
    assert [pool.collective for pool in resolved.pools] == ["mpi", "mpi"]


def test_what_a_check_takes_for_native_is_what_the_devices_name() -> None:
    for device in (CpuDevice, CudaDevice):
        assert COLLECTIVES[device.kind][0] == device.collective


def test_weights_follow_the_dtype_that_was_said(config: Callable[..., Config]) -> None:
    assert resolve(config("model.dtype=float32"), MODEL, 1).pools[0].weights == "float32"


@pytest.mark.parametrize(
    ("model_json", "dtype"),
    [
        ({**MODEL, "dtype": "float16"}, "float16"),
        ({"max_position_embeddings": 8}, "float32"),
        ({"max_position_embeddings": 8, "dtype": None, "torch_dtype": None}, "float32"),
    ],
)
def test_dtype_of_config_json(
    config: Callable[..., Config], model_json: dict[str, object], dtype: str
) -> None:
    assert resolve(config(), model_json, 1).models[0].dtype == dtype


@pytest.mark.parametrize(
    ("model_json", "overrides", "said"),
    [
        ({**MODEL, "torch_dtype": "float64"}, (), "model.dtype: auto follows .* 'float64'; set"),
        ({"dtype": "float32"}, (), "model.max_context: .* no max_position_embeddings"),
        (MODEL, ("model.max_context=4097",), "4097 tokens are more than the model's 4096"),
        (
            MODEL,
            ("pools=[{name: a, device: cpu}, {name: b, device: cpu, collective: gloo}]",),
            "cpu pools exchange over one collective, got a: mpi, b: gloo; set it to the same",
        ),
    ],
)
def test_a_choice_that_cannot_be_made_is_an_error(
    config: Callable[..., Config],
    model_json: dict[str, object],
    overrides: tuple[str, ...],
    said: str,
) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve(config(*overrides), model_json, 1)


def test_unlike_pools_have_each_their_native_collective(write: Callable[[str], Path]) -> None:
    pools = "pools=[{name: a, device: cuda}, {name: b, device: npu}, {name: c, device: cpu}]"
    unlike = load_config(write(TEXT), [pools], to_serve=False)
    resolved = resolve(unlike, MODEL, 1)
    assert [pool.collective for pool in resolved.pools] == ["nccl", "hccl", "mpi"]


def test_weights_wider_than_the_dtype_are_not_served(
    config: Callable[..., Config],
) -> None:
    resolved = resolve(config("pools.0.weights=float16"), MODEL, 1)
    said = (
        r"pools\[0\]\.weights: this version does not compute with float16 weights beside "
        r"activations in bfloat16; use bfloat16, int8, or leave the key out"
    )
    with pytest.raises(UnsupportedError, match=said):
        require_served(resolved)
    for served in ((), ("pools.0.weights=int8",)):
        require_served(resolve(config(*served), MODEL, 1))


def test_every_choice_is_logged_once(
    config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    before = config("pools.0.threads=2")
    with caplog.at_level(logging.INFO, "moe_serve.config.resolve"):
        after = resolve(before, MODEL, 1)
        log_choices(before, after)
    expected = [
        ("models[0].name", "Tiny-MoE"),
        ("models[0].dtype", "bfloat16"),
        ("models[0].max_context", 4096),
        ("pools[0].weights", "bfloat16"),
        ("pools[0].collective", "mpi"),
    ]
    assert list(choices(before, after)) == expected
    assert caplog.messages == [f"{key}: chose {value}" for key, value in expected]
