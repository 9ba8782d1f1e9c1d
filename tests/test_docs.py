"""The documents name what exists: every module, every config, both READMEs alike."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("moe_serve", "comm", "kernels", "devices", "placement")
MAX_README_LINES = 120


def modules() -> set[str]:
    files = (file for folder in SOURCES for file in (ROOT / folder).rglob("*.py"))
    return {str(file.relative_to(ROOT)) for file in files if file.name != "__init__.py"}


def documented() -> set[str]:
    found, folder = set(), ""
    for line in (ROOT / "docs/structure.md").read_text().splitlines():
        if heading := re.fullmatch(r"### `(.+)/`", line):
            folder = heading[1]
        elif entry := re.match(r"- `(\w+\.py)`: \S", line):
            found.add(f"{folder}/{entry[1]}")
    return found


def test_structure_has_one_line_for_each_module() -> None:
    assert documented() == modules()


def test_readmes_are_short_and_show_the_same_commands() -> None:
    texts = [(ROOT / name).read_text() for name in ("README.md", "README.zh.md")]
    assert all(len(text.splitlines()) <= MAX_README_LINES for text in texts)
    commands = [
        [
            re.split(r"\s+#", line)[0]
            for line in re.findall(r"^    (?:make|mpirun|moe_serve|moe_bench) .*", text, re.M)
        ]
        for text in texts
    ]
    assert commands[0] == commands[1] != []
