"""Makes the table at the end of a run: for the terminal, and as Markdown for Prefect."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

LOG_WIDTH = 160  # characters, where the output is not a terminal
HEADER = ("stage", "state", "seconds", "pictures computed", "worker", "why")  # the last column is the only long one
COLOURS = {"executed": "bold green", "restored": "cyan", "unchanged": "dim", "failed": "bold red"}
MARKDOWN_ESCAPES = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;"} | {sign: f"\\{sign}" for sign in "\\`*[]|~!"})


@dataclass(frozen=True)
class Row:
    """One stage of a run. `state` is executed, restored, unchanged, failed, not run or cancelled."""

    stage: str
    state: str
    why: tuple[str, ...]
    seconds: float | None = None
    items: int | None = None
    computed: int | None = None
    worker: str = ""

    def cells(self) -> tuple[str, ...]:
        seconds = "" if self.seconds is None else f"{self.seconds:,.1f}"
        pictures = "" if self.items is None else format_computed(self.computed or 0, self.items)
        return self.stage, self.state, seconds, pictures, self.worker, format_reasons(self.why)


def format_computed(computed: int, items: int) -> str:
    """Returns how many of its pictures a stage computed. It took the other pictures from earlier runs."""
    if computed == items:
        return f"all {items:,}"
    return f"{f'{computed:,}' if computed else 'none'} of {items:,}"


def format_reasons(why: Sequence[str], max_lines: int = 3) -> str:
    """Returns the first few reasons, and how many more there are, in at most `max_lines` lines."""
    more = [f"and {len(why) - max_lines + 1} more"] if len(why) > max_lines else []
    return "\n".join([*why[: max_lines - 1 if more else max_lines], *more])


def show(rows: Sequence[Row]) -> None:
    print_table(HEADER, [(row.cells(), COLOURS.get(row.state, "yellow")) for row in rows])


def print_table(header: Sequence[str], rows: Sequence[tuple[Sequence[str], str]], title: str | None = None) -> None:
    """Prints a table as wide as the terminal, or LOG_WIDTH wide in a log. `rows`: cells and style of each row."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*header, title=title)
    for cells, style in rows:
        table.add_row(*map(escape, cells), style=style)
    escape_unencodable_characters()
    Console(width=None if sys.stdout.isatty() else LOG_WIDTH).print(table)


def escape_unencodable_characters() -> None:
    """Makes `print` write `\\xe4` for a character that the locale's encoding lacks: a name must not end a run."""
    if reconfigure := getattr(sys.stdout, "reconfigure", None):  # DVC's colorama may have wrapped it
        reconfigure(errors="backslashreplace")


def escape_markdown(text: str) -> str:
    """Returns Markdown that shows the text literally, so that a label or a file name cannot become HTML, a link or a
    table cell."""
    return text.translate(MARKDOWN_ESCAPES)


def markdown(rows: Sequence[Row]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(escape_markdown(cell).replace(chr(10), '<br>') for cell in cells)} |"

    return "\n".join([line(HEADER), line(["---"] * len(HEADER)), *(line(row.cells()) for row in rows)])
