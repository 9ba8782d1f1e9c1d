"""One YAML file to one frozen tree; whatever is wrong is named."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from moe_serve.config.fields import build
from moe_serve.config.load import load_config
from moe_serve.config.tree import LinkConfig
from moe_serve.config.unserved import unserved
from moe_serve.errors import ConfigError, UnsupportedError

SMALL = "model: {path: demo}\npools: [{name: host, device: cpu, ranks: 2}]\n"
Write = Callable[[str], Path]
Refusal = Callable[..., str]

FULL = """
model: {path: demo, name: tiny, dtype: bfloat16, max_context: 2048}
pools:
  - name: left
    device: cpu
    ranks: 2
    role: both
    weights: bfloat16
    memory: 1TiB
    collective: gloo
    threads: 1
    attention: {tensor_parallel: 1}
  - {name: right, device: cpu}
links: []
placement: {plan: plan.json, redundancy: 0, load: ""}
scheduler: {max_tokens_per_step: 8192, max_sequences: 64, max_waiting: 9}
cache: {page_size: 32, num_pages: 100, memory_fraction: 1, prefix: false}
server: {host: 0.0.0.0, port: 0, api_keys: keys.txt}
deterministic: true
"""


def test_every_key_is_read(write: Write) -> None:
    config = load_config(write(FULL))
    left, right = config.pools
    assert (left.memory, left.weights, left.collective, left.threads) == (
        2**40,
        "bfloat16",
        "gloo",
        1,
    )
    assert (right.ranks, right.role, config.num_ranks) == (1, "both", 3)
    assert config.models[0].name == "tiny"
    assert (config.links, Path(config.placement.plan).name) == ((), "plan.json")
    assert (config.scheduler.max_waiting, config.scheduler.max_live) == (9, 64 + 9)
    assert config.cache.memory_fraction == 1.0
    assert isinstance(config.cache.memory_fraction, float)
    assert (config.server.port, config.deterministic) == (0, True)


def test_a_link_is_read_with_its_units() -> None:
    text = {"between": ["left", "right"], "bandwidth": "25GB/s", "latency": "5us"}
    link = build(LinkConfig, text, "links[0]")
    assert (link.between, link.bandwidth) == (("left", "right"), 25e9)
    assert link.latency == pytest.approx(5e-6)


def test_the_tree_is_frozen(write: Write) -> None:
    config = load_config(str(write(SMALL)))
    with pytest.raises(FrozenInstanceError):
        config.deterministic = True  # type: ignore[misc]


def test_models_with_one_entry_is_the_same_as_model(write: Write) -> None:
    short = load_config(write(SMALL))
    long = load_config(write(SMALL.replace("model: {path: demo}", "models: [{path: demo}]")))
    assert long == short


def test_model_paths_resolve_against_the_current_directory(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(SMALL)
    monkeypatch.chdir(tmp_path)
    paths = {
        text: load_config(path, [f"model.path={text}"]).models[0].path
        for text in ("demo", "builtin:deepseek_v3", "./demo", "/models/x")
    }
    assert paths == {
        "demo": "demo",
        "builtin:deepseek_v3": "builtin:deepseek_v3",
        "./demo": str(tmp_path / "demo"),
        "/models/x": "/models/x",
    }


def test_pools_have_names_of_any_script(write: Write) -> None:
    names = [
        load_config(write(SMALL), [f"pools.0.name={name}"]).pools[0].name
        for name in ("gpu-0", "h20.left_2", "主机")
    ]
    assert names == ["gpu-0", "h20.left_2", "主机"]


def test_an_empty_section_keeps_its_defaults(write: Write) -> None:
    assert load_config(write(f"{SMALL}cache:\n")).cache.page_size == 64


def test_overrides_are_laid_over_the_file(write: Write) -> None:
    config = load_config(
        write(SMALL),
        [
            "pools.0.ranks=4",
            "pools[0].weights=bfloat16",
            "server.port=9001",
            "deterministic=yes",
            "links=[]",
            "server.api_keys=a=b.txt",
        ],
    )
    assert (config.pools[0].ranks, config.pools[0].weights) == (4, "bfloat16")
    assert (config.server.port, config.server.api_keys) == (9001, "a=b.txt")
    assert config.deterministic


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("pools.0.wieghts=auto", 'pools[0].wieghts: unknown key; did you mean "weights"?'),
        ("modle=1", 'modle: unknown key; did you mean "models"?'),
        ("cache.zzz=1", "cache.zzz: unknown key; the keys here are page_size, num_pages,"),
        ("model.pth=x", 'model.pth: unknown key; did you mean "path"?'),
        ("pools.0.attention.tensorparallel=1", "pools[0].attention.tensorparallel: unknown key"),
        ("1=2", "1: unknown key"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(refusal: Refusal, key: str, said: str) -> None:
    assert said in refusal(SMALL, key)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("pools.0.ranks=four", "pools[0].ranks: expected a whole number, got 'four' (text)"),
        ("pools.0.ranks=2.0", "pools[0].ranks: expected a whole number, got 2.0 (a number)"),
        ("pools.0.ranks=true", "pools[0].ranks: expected a whole number, got true"),
        ("pools.0.ranks=0", "pools[0].ranks: expected at least 1, got 0"),
        ("pools.0.compute_percent=0", "compute_percent: expected at least 1 and at most 100"),
        ("pools.0.name=7", "pools[0].name: expected text, got 7 (a whole number)"),
        ("pools.0.name=''", "pools[0].name: expected something that is not empty"),
        ("pools=4", "pools: expected a list, got 4"),
        ("pools=[]", "pools: expected something that is not empty"),
        ("pools.0=cpu", "pools[0]: expected a section of keys, got 'cpu'"),
        ("cache=[]", "cache: expected a section of keys, got a list"),
        ("model.path=", "model.path: expected text, got nothing"),
        ("deterministic=1", "deterministic: expected true or false, got 1"),
        ("server.port=65536", "server.port: expected at least 0 and at most 65535, got 65536"),
        ("server.port=-1", "server.port: expected at least 0"),
        ("cache.memory_fraction=0", "cache.memory_fraction: expected above 0 and at most 1"),
        ("cache.memory_fraction=1.01", "cache.memory_fraction: expected above 0 and at most 1"),
        ("cache.memory_fraction=.nan", "cache.memory_fraction: expected above 0"),
        ("cache.page_size=0", "cache.page_size: expected at least 1"),
        ("cache.num_pages=-1", "cache.num_pages: expected at least 0"),
        ("pools.0.device=gpu", "pools[0].device: expected one of cpu, cuda, npu, emulated, got"),
        (
            "pools.0.role=chef",
            "pools[0].role: expected one of auto, both, prefill, decode, experts",
        ),
        ("pools.0.weights=int9", "pools[0].weights: expected one of auto, float32, bfloat16, floa"),
        ("model.dtype=fp8", "model.dtype: expected one of auto, float32, bfloat16, float16, got"),
        ("pools.0.memory=lots", "pools[0].memory: expected a size such as 80GiB or 512MB, got"),
        ("pools.0.memory=80Gb", "pools[0].memory: expected a size such as 80GiB"),
        ("pools.0.memory=-1", "pools[0].memory: expected at least 0"),
        ("pools.0.memory=[1]", "pools[0].memory: expected a size such as 80GiB"),
        ("placement.redundancy=-0.5", "placement.redundancy: expected at least 0"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_wanted(
    refusal: Refusal, override: str, said: str
) -> None:
    assert said in refusal(SMALL, override)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pools: [{name: a, device: cpu}]", "models: this key is required and missing"),
        ("model: {path: demo}", "pools: this key is required and missing"),
        ("model: {name: x}\npools: []", "model.path: this key is required and missing"),
        ("model: {path: demo}\npools: [{name: a}]", "pools[0].device: this key is required"),
        (f"{SMALL}links: [{{between: [host, host]}}]", "links[0].bandwidth: this key is required"),
        (f"{SMALL}models: [{{path: demo}}]", "model and models: both are given"),
    ],
)
def test_a_missing_or_doubled_section_is_named(refusal: Refusal, text: str, said: str) -> None:
    assert said in refusal(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("- a\n- b\n", "expected keys such as model and pools"),
        ("just text", "expected keys such as model and pools"),
        ("a: [1\nb: 2\n", "line 2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("a: !!python/object:os.system {}\n", "not valid YAML"),
        ("a: 2024-13-45\n", "not valid YAML"),
        ("a: \x07\n", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        (f"{SMALL}cache: {{prefix: true, prefix: false}}\n", 'the key "prefix" is given twice'),
        (f"{SMALL}{SMALL}", 'line 3: not valid YAML: the key "model" is given twice'),
    ],
)
def test_what_is_no_config_file_is_refused_in_one_line(
    refusal: Refusal, text: str, said: str
) -> None:
    assert said in refusal(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot read .* No such file"):
        load_config(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"model: \xff\xfe")
    with pytest.raises(ConfigError, match="not a text file"):
        load_config(binary)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("server.port", 'expected "section.key=value"'),
        ("=3", 'expected "section.key=value"'),
        ("server..port=3", 'expected "section.key=value"'),
        ("pools.1.ranks=3", '"1" is no entry of a list of 1; entries count from 0 to 0'),
        ("pools.first.ranks=3", '"first" is no entry of a list of 1'),
        ("pools.0.name.x=3", "has no keys of its own"),
        ("pools.0.name.x.y=3", 'there is no section to hold "x"'),
        ("server.port=[1", "--set server.port=[1: not valid YAML"),
    ],
)
def test_an_override_without_a_place_is_refused(refusal: Refusal, override: str, said: str) -> None:
    assert said in refusal(SMALL, override)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "pools.0.weights=fp8",
            "does not compute with fp8 weights; use float32, bfloat16, float16",
        ),
        ("pools.0.weights=int4", "pools[0].weights: this version does not compute with int4"),
        (
            "pools=[{name: a, device: npu, ranks: 2, attention: {tensor_parallel: 2}}]",
            "pools[0].attention.tensor_parallel: this version opens one HCCL group",
        ),
    ],
)
def test_what_a_later_version_may_do_is_refused_plainly(
    write: Write, override: str, said: str
) -> None:
    text = SMALL.replace("model: {path: demo}", "models: [{path: demo}]")
    with pytest.raises(UnsupportedError) as caught:
        load_config(write(text), [override])
    assert said in str(caught.value)


def test_what_is_not_served_can_be_loaded_to_be_checked(write: Write) -> None:
    mixed = (
        "pools=[{name: a, device: npu, role: prefill, weights: int4},"
        " {name: b, device: cuda, role: decode, attention: {tensor_parallel: 2}, ranks: 2}]"
    )
    link = "links=[{between: [a, b], bandwidth: 25GB/s}]"
    config = load_config(write(SMALL), [mixed, link], to_serve=False)
    assert [pool.weights for pool in config.pools] == ["int4", "auto"]
    (said,) = unserved(config)
    assert "does not compute with int4" in said
    with pytest.raises(UnsupportedError, match="does not compute with int4"):
        load_config(write(SMALL), [mixed, link])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("links=[{between: [host, host], bandwidth: 1GB/s}]", "joins a pool to itself"),
        ("pools.0.attention.tensor_parallel=3", "3 does not divide the pool's 2 ranks"),
        ("pools.0.device=emulated", "an emulated pool must say what it emulates"),
        (
            "pools=[{name: a, device: cuda, compute_percent: 30}]",
            "pools[0].compute_percent: a process is held to a part of a cpu's time, not of cuda's",
        ),
        (
            "pools=[{name: a, device: cpu, role: experts, attention: {tensor_parallel: 2}}]",
            "an experts pool has no attention to share, got 2",
        ),
    ],
)
def test_what_pools_cannot_be_is_refused(refusal: Refusal, override: str, said: str) -> None:
    assert said in refusal(SMALL, override)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("{path: /models/demo}", 'models: 2 models are called "demo"'),
        ("{path: a, rank: 2}", "models[1].rank: there is no rank 2, ranks are 0 to 1"),
        ("{path: a, spread: all, rank: 0}", "models[1].rank: 0 is one rank, and spread: all"),
        ("{path: a, spread: all, slice: {isolate: sm}}", "sm keeps a part of one device"),
        ("{path: a, slice: {compute_percent: 101}}", "models[1].slice.compute_percent"),
        ("{path: a, slice: {mode: soft}}", "models[1].slice.mode"),
        ("{path: a, slice: {memory_mb: -1}}", "models[1].slice.memory_mb"),
    ],
)
def test_what_models_beside_others_cannot_be_is_refused(
    refusal: Refusal, second: str, said: str
) -> None:
    text = SMALL.replace("model: {path: demo}", f"models: [{{path: demo}}, {second}]")
    assert said in refusal(text)


def test_several_models_do_both_phases_in_the_same_pools(write: Write) -> None:
    text = SMALL.replace("model: {path: demo}", "models: [{path: demo}, {path: a}]")
    roles = "pools=[{name: a, device: cpu, role: prefill}, {name: b, device: cpu, role: decode}]"
    with pytest.raises(UnsupportedError, match=r"pools\[0\].role: .*got prefill"):
        load_config(write(text), [roles])


def test_hardware_is_looked_for_beside_the_config(write: Write, tmp_path: Path) -> None:
    named = load_config(write(SMALL), ["pools.0.hardware=h20"])
    assert named.pools[0].hardware == "h20"
    measured = load_config(write(SMALL), ["pools.0.hardware=mine.yaml"])
    assert measured.pools[0].hardware == str(tmp_path / "mine.yaml")


def test_a_plan_file_is_looked_for_beside_the_config(write: Write, tmp_path: Path) -> None:
    config = load_config(write(SMALL), ["placement.plan=plans/a.json"])
    assert config.placement.plan == str(tmp_path / "plans/a.json")
    assert load_config(write(SMALL), ["placement.plan=/a.json"]).placement.plan == "/a.json"
    assert load_config(write(SMALL), ["placement.load=x.npz"]).placement.load == (
        str(tmp_path / "x.npz")
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("pools=[{name: a, device: cpu}, {name: a, device: cpu}]", '2 pools are named "a"'),
        ("pools.0.name=a+b", "pools[0].name: expected letters, digits, dots, - and _ alone, got"),
        ("pools.0.name=a>b", "pools[0].name: expected letters"),
        ('pools.0.name="a b"', "got 'a b'; rename the pool"),
        ("pools.0.name='a,b'", "got 'a,b'; rename the pool"),
        ('pools.0.name="a\\nb"', "pools[0].name: expected letters"),
        ("pools.0.collective=nccl", "pools[0].collective: nccl does not join cpu ranks; use auto"),
        ("links=[{between: [host, x], bandwidth: 1}]", 'links[0].between: there is no pool "x"'),
        ("links=[{between: [host], bandwidth: 1}]", "links[0].between: expected 2 entries, got 1"),
        ("links=[{between: [a, b], bandwidth: 0}]", "links[0].bandwidth: expected above 0"),
        ("links=[{between: [a, b], bandwidth: 5us}]", "expected a rate such as 25GB/s"),
    ],
)
def test_keys_that_contradict_one_another_are_refused(
    refusal: Refusal, override: str, said: str
) -> None:
    assert said in refusal(SMALL, override)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("placement.plan=plan.json", "placement.redundancy=0.5"),
            "placement.redundancy: the plan file plan.json says already where experts",
        ),
        (
            ("placement.plan=plan.json", "placement.load=x.npz"),
            "placement.load: the plan file plan.json says already where experts",
        ),
        (
            ("placement.redundancy=0.125",),
            "placement.redundancy: 0.125 of the experts may have replicas, those that a load trace",
        ),
        (
            ("deterministic=true", "pools.0.threads=2"),
            "pools[0].threads: deterministic: true computes with 1 thread, which gives one order",
        ),
    ],
)
def test_a_key_that_another_one_would_overrule_is_refused(
    refusal: Refusal, overrides: tuple[str, ...], said: str
) -> None:
    assert said in refusal(SMALL, *overrides)


def test_the_message_names_the_file(write: Write) -> None:
    path = write(SMALL)
    with pytest.raises(ConfigError, match=r"config\.yaml: pools") as caught:
        load_config(path, ["pools.0.ranks=0"])
    assert str(caught.value).startswith(f"{path}: ")
