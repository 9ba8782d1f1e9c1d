"""A table as a value, and as Markdown; terminals and HTML pages show the same one."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """Attributes:
    header: one word or a few for each column.
    rows: as many cells each as the header has.
    note: a sentence below; may be empty.
    num_names: how many columns from the left are names; the others are figures.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    num_names: int = 1

    def markdown(self) -> str:
        """The table with its title in bold; bars in cells are escaped."""
        marks = ["---"] * self.num_names + ["---:"] * (len(self.header) - self.num_names)
        lines = [_line(self.header), _line(tuple(marks)), *map(_line, self.rows)]
        note = f"\n\n{self.note}" if self.note else ""
        return f"**{self.title}**\n\n" + "\n".join(lines) + note


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
