"""A page of sections with tables and pictures: as text for a terminal, or as one self-contained HTML file."""

from dataclasses import dataclass, field
from pathlib import Path

from data.files import write_atomically
from data.headers import printable

WIDEST = 46  # characters of a cell in a terminal


@dataclass
class Table:
    """Rows of texts under columns; the first `n_text` columns are words, the others numbers."""

    columns: list
    rows: list
    title: str = ""
    n_text: int = 1


@dataclass
class Picture:
    """Inline SVG with what it shows; kind: 'plain', 'wide' (scrolls by itself) or 'paper' (stays light, scrolls)."""

    svg: str
    label: str
    kind: str = "plain"
    heading: str = ""
    texts: list = field(default_factory=list)


@dataclass
class Facts:
    """Names and values."""

    facts: list


@dataclass
class Section:
    """A heading that can be linked to (by `key`), paragraphs, and parts: Table, Picture or Facts."""

    key: str
    title: str
    texts: list = field(default_factory=list)
    parts: list = field(default_factory=list)


def write_page(file: str | Path, title: str, lead: str, sections: list[Section]) -> None:
    """Write the page as HTML, under a temporary name first, and its folder if need be; every text is escaped, pictures
    are taken as they are.
    """
    from jinja2 import Environment, FileSystemLoader  # only those who want a page need it

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    html = environment.get_template("page.html.j2").render(title=title, lead=lead, sections=sections)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, html.encode("utf-8", "backslashreplace"))


def page_text(title: str, lead: str, sections: list[Section]) -> str:
    """The same for a terminal, without pictures."""
    lines = [title, lead]
    for section in sections:
        lines += ["", section.title, "-" * len(section.title), *section.texts]
        for part in section.parts:
            if isinstance(part, Table):
                lines += _text_table(part)
    return "\n".join(printable(line) for line in lines)


def _text_table(table):
    rows = [[_short(str(cell)) for cell in row] for row in [table.columns, *table.rows]]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [table.title] if table.title else []
    for row in rows:
        cells = [
            cell.ljust(width) if i < table.n_text else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def _short(text):
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."
