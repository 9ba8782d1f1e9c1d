"""The Python API with text prompts, as the README shows it."""

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_runs import GREEDY, engine
from oracle import agrees_with, load_oracle
from transformers import PreTrainedTokenizerFast

from moe_serve.errors import RequestError
from moe_serve.llm import LLM, Completion
from moe_serve.types import SamplingParams

ROOT = Path(__file__).parents[2]
TEXTS = ("Seventeen small ships", "她说:今天", "🙂", "x")


def test_texts_in_and_out(checkpoint: Callable[..., Path]) -> None:
    path = checkpoint("deepseek_v3")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    with engine(path) as llm:
        completions = llm.generate(TEXTS, GREEDY)
    model = load_oracle(path)
    for text, completion in zip(TEXTS, completions, strict=True):
        ids = tokenizer(text).input_ids
        assert completion.prompt_ids == tuple(ids)
        assert agrees_with(model, ids, completion.token_ids)
        assert len(completion.token_ids) == GREEDY.max_tokens
        assert completion.text == tokenizer.decode(completion.token_ids, skip_special_tokens=True)
        assert completion.finish_reason == "length"
    assert len({completion.text for completion in completions}) == len(TEXTS)


def test_expert_load_has_a_row_for_every_choice(checkpoint: Callable[..., Path]) -> None:
    with engine(checkpoint("deepseek_v3")) as llm:
        llm.generate([[20, 21, 22], [30] * 5], GREEDY)
        load = llm.expert_load()
    # The last token of each answer is not computed any more; four experts for each of the others.
    num_tokens = 3 + 5 + 2 * (GREEDY.max_tokens - 1)
    assert load.counts_TLE.sum(axis=2).tolist() == [[4 * num_tokens] * load.num_layers]


def test_special_tokens_are_left_out_of_the_text(checkpoint: Callable[..., Path]) -> None:
    path = checkpoint("qwen3_moe")
    end = 2
    sampling = SamplingParams(temperature=0.0, max_tokens=9, logit_bias=((end, 100.0),))
    with engine(path) as llm:
        (completion,) = llm.generate(["Hello"], sampling)
    assert completion.token_ids == (end,) and completion.finish_reason == "stop"
    assert completion.text == ""


def test_a_text_without_a_tokenizer_is_refused(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    for file in checkpoint("llama").iterdir():
        if not file.name.startswith("tokenizer"):
            (tmp_path / file.name).symlink_to(file)
    with engine(tmp_path) as llm:
        with pytest.raises(RequestError, match=r"no tokenizer\.json; give token ids"):
            llm.generate(["Hello"], GREEDY)
        (completion,) = llm.generate([[5, 6]], GREEDY)
    assert len(completion.token_ids) == GREEDY.max_tokens and completion.text == ""


@pytest.fixture
def same_threads() -> Iterator[None]:
    """The demo's config takes a thread for each core, here and in whatever comes after it."""
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.usefixtures("same_threads")
def test_the_readmes_snippet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[Completion] = []
    generate = LLM.generate

    def recorded(llm: LLM, prompts: Sequence[Any], *arguments: Any) -> list[Completion]:
        assert prompts == ["Hello"]
        given.extend(generate(llm, prompts, *arguments))
        return given

    monkeypatch.setattr(LLM, "generate", recorded)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    snippets = [snippet(ROOT / name) for name in ("README.md", "README.zh.md")]
    assert snippets[0] == snippets[1]
    exec(snippets[0], {})
    (completion,) = given
    assert 1 <= len(completion.token_ids) <= 8
    assert capsys.readouterr().out == completion.text + "\n"


def snippet(readme: Path) -> str:
    """The indented lines from the import of LLM on."""
    match = re.search(
        r"^    from moe_serve\.llm .*\n(?:^    .*\n)+", readme.read_text(), re.MULTILINE
    )
    assert match is not None, f"{readme.name} shows no use of LLM"
    return textwrap.dedent(match[0])
