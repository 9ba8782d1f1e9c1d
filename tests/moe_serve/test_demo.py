"""The built-in demo checkpoint."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
from oracle import continue_greedily, load_oracle
from transformers import AutoTokenizer

from moe_serve import demo
from moe_serve.demo import demo_checkpoint
from moe_serve.demo_config import demo_config
from moe_serve.errors import CheckpointError


def digest(directory: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in directory.iterdir()
    }


def test_transformers_loads_it_and_it_speaks(tmp_path: Path) -> None:
    path = demo_checkpoint(tmp_path)
    tokenizer, model = AutoTokenizer.from_pretrained(path), load_oracle(path)
    chat = [{"role": "user", "content": "Hello! 你好 🙂"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert tokenizer.decode(prompt).endswith("你好 🙂<|im_end|>\n<|im_start|>assistant\n")
    tokens, _ = continue_greedily(model, prompt, 64)
    assert len(set(tokens)) >= 20
    said = tokenizer.decode(tokens, skip_special_tokens=True)
    assert said.isascii() and all(word.strip(".,").isalpha() for word in said.split())
    assert len(tokenizer) == model.config.vocab_size
    assert json.loads((path / "config.json").read_text()) == demo_config()


@pytest.mark.slow
def test_processes_at_once_make_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from moe_serve.demo import demo_checkpoint; "
        "sys.stdout.write('imported\\n'); sys.stdout.flush(); sys.stdin.readline(); "
        "print(demo_checkpoint(Path(sys.argv[1])), 'transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "theirs")]
    makers = [subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) for _ in range(2)]
    for maker in makers:
        assert maker.stdout is not None and maker.stdout.readline() == "imported\n"
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()
    answers = [maker.communicate(timeout=60)[0].split() for maker in makers]
    ours, theirs = demo_checkpoint(tmp_path / "ours"), tmp_path / "theirs" / "demo-1"
    assert answers == [[str(theirs), "False"]] * 2
    assert [entry.name for entry in theirs.parent.iterdir()] == ["demo-1"]
    assert digest(theirs) == digest(ours)
    assert sum(file.stat().st_size for file in ours.iterdir()) < 5e6


def test_a_slower_maker_takes_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner = tmp_path / "demo-1"

    def write_after_another(directory: Path, config: object) -> None:
        for place in (winner, directory):
            place.mkdir()
            (place / "config.json").write_text(place.name)

    monkeypatch.setattr(demo, "write_checkpoint", write_after_another)
    assert demo_checkpoint(tmp_path) == winner
    assert (winner / "config.json").read_text() == "demo-1"
    assert list(tmp_path.iterdir()) == [winner]


def test_made_once(tmp_path: Path) -> None:
    path = demo_checkpoint(tmp_path)
    before = (path / "config.json").stat().st_mtime_ns
    assert demo_checkpoint(tmp_path) == path
    assert (path / "config.json").stat().st_mtime_ns == before


def test_follows_the_users_cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert demo_checkpoint().parent == tmp_path / "moe_serve"


def test_unwritable_cache_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="XDG_CACHE_HOME"):
        demo_checkpoint(tmp_path / "file" / "cache")
