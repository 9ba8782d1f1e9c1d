"""Request traces: two public forms and our own, and what is wrong with one, named."""

from pathlib import Path

import pytest
from moe_placement.simulator.scheduler import SimulatedRequest
from moe_placement.simulator.trace_fields import TraceError
from moe_placement.simulator.traces import read_trace

DATA = Path(__file__).parent / "data"


def test_azures_rows_become_requests() -> None:
    first, second, *_, last = read_trace(DATA / "azure_llm_2023_conversation.csv")
    assert first == SimulatedRequest(request_id=0, prompt_tokens=374, output_tokens=44)
    assert second.arrival == pytest.approx(4.314579, abs=1e-5)
    assert last.request_id == 4 and last.arrival > second.arrival


def test_mooncakes_blocks_stay_with_their_requests() -> None:
    first, middle, last = read_trace(DATA / "mooncake_fast25_synthetic.jsonl")
    assert (first.prompt_tokens, first.output_tokens, first.block_tokens) == (2752, 35, 512)
    assert first.blocks == (708, 709, 710, 711, 712, 713)
    assert first.blocks[:5] == last.blocks[:5] and first.blocks != last.blocks
    assert first.arrival == 0.0 and last.arrival == pytest.approx(16.801 - 3.437)
    assert len(middle.blocks) == 2


def test_a_limit_takes_the_first_rows() -> None:
    assert len(read_trace(DATA / "azure_llm_2023_conversation.csv", limit=2)) == 2


def test_the_plain_forms_are_read(tmp_path: Path) -> None:
    table, lines = tmp_path / "mine.csv", tmp_path / "mine.jsonl"
    table.write_text("arrival,prompt_tokens,output_tokens\n2.5,10,3\n1.5,20,4\n")
    lines.write_text(
        '{"arrival": 1, "prompt_tokens": 9, "output_tokens": 2, "blocks": [4], "block_tokens": 8}\n'
        "\n"
        '{"arrival": 3, "prompt_tokens": 9, "output_tokens": 2}\n'
    )
    assert [one.arrival for one in read_trace(table)] == [1.0, 0.0]
    first, second = read_trace(lines)
    assert (first.blocks, first.block_tokens) == ((4,), 8)
    assert (second.blocks, second.arrival) == ((), 2.0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "a.csv:1: the columns are missing; a trace has TIMESTAMP"),
        ("a.csv", "x,y\n1,2\n", "a.csv:1: the columns are x, y; a trace has TIMESTAMP"),
        (
            "a.csv",
            "arrival,prompt_tokens,output_tokens\n1,5,5\n2,0,5\n",
            "a.csv:3: prompt_tokens is '0'; give 1 or more tokens",
        ),
        (
            "a.csv",
            "arrival,prompt_tokens,output_tokens\nsoon,5,5\n",
            "a.csv:2: arrival is 'soon'; give a number",
        ),
        (
            "a.csv",
            "arrival,prompt_tokens,output_tokens\n1,5\n",
            "a.csv:2: output_tokens is None; give a whole number",
        ),
        (
            "a.csv",
            "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,5,5\n",
            "a.csv:2: TIMESTAMP is 'yesterday'; give a time as 2023-11-16",
        ),
        ("a.jsonl", "{\n", "a.jsonl:1: is not JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: has list; a trace has timestamp, input_length"),
        ("a.jsonl", '{"arrival": 1}\n', "a.jsonl:1: has arrival; a trace has timestamp"),
        (
            "a.jsonl",
            '{"timestamp": 1, "input_length": 2.5, "output_length": 3}\n',
            "a.jsonl:1: input_length is 2.5; give a whole number",
        ),
        (
            "a.jsonl",
            '{"timestamp": NaN, "input_length": 2, "output_length": 3}\n',
            "a.jsonl:1: timestamp is nan; give a number",
        ),
        (
            "a.jsonl",
            '{"timestamp": 1, "input_length": 2, "output_length": 3, "hash_ids": ["x"]}\n',
            r"a.jsonl:1: hash_ids is \['x'\]; give a list of whole numbers",
        ),
        ("a.jsonl", "\n\n", "a.jsonl: has no requests"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: is not JSON"),
        (
            "a.csv",
            f"arrival,prompt_tokens,output_tokens\n{'1' * 200_000},5,5\n",
            r"a.csv: is no CSV \(field larger than field limit",
        ),
    ],
)
def test_errors_name_file_line_and_key(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TraceError, match=message):
        read_trace(tmp_path / name)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none\.csv: No such file or directory; name a trace"):
        read_trace(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(TraceError, match=r"b\.csv: byte 0 is not UTF-8"):
        read_trace(tmp_path / "b.csv")
    with pytest.raises(TraceError, match=r"b\.csv: limit is 0; take at least 1 request"):
        read_trace(tmp_path / "b.csv", limit=0)


def test_what_spreadsheets_write_first_is_no_part_of_a_name(tmp_path: Path) -> None:
    table, lines = tmp_path / "a.csv", tmp_path / "a.jsonl"
    table.write_text("\ufeffarrival,prompt_tokens,output_tokens\n1,10,3\n")
    lines.write_text('\ufeff{"arrival": 1, "prompt_tokens": 10, "output_tokens": 3}\n')
    assert read_trace(table) == read_trace(lines)


def test_zones_that_are_told_count(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46+02:00,1,1\n2023-11-16 16:15:47+00:00,1,1\n"
    )
    assert [one.arrival for one in read_trace(path)] == [0.0, 1.0]
