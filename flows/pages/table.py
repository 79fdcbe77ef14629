"""The table at the end of a run: for the terminal, and as markdown for Prefect."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

LOG_WIDTH = 160
HEADER = ("stage", "state", "seconds", "pictures computed", "worker", "why")  # last: the only long one
COLOURS = {"executed": "bold green", "restored": "cyan", "unchanged": "dim", "failed": "bold red"}
MARKDOWN = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;"} | {sign: f"\\{sign}" for sign in "\\`*[]|~!"})


@dataclass(frozen=True)
class Row:
    """`state`: executed, restored, unchanged, failed, not run, cancelled."""

    stage: str
    state: str
    why: tuple[str, ...]
    seconds: float | None = None
    items: int | None = None
    computed: int | None = None
    worker: str = ""

    def cells(self) -> tuple[str, ...]:
        seconds = "" if self.seconds is None else f"{self.seconds:,.1f}"
        pictures = "" if self.items is None else computed_of(self.computed or 0, self.items)
        return self.stage, self.state, seconds, pictures, self.worker, first_lines(self.why)


def computed_of(computed: int, items: int) -> str:
    """How many pictures a stage computed; the others it took from earlier runs."""
    if computed == items:
        return f"all {items:,}"
    return f"{f'{computed:,}' if computed else 'none'} of {items:,}"


def first_lines(why: Sequence[str], lines: int = 3) -> str:
    """The first few reasons, and how many more there are."""
    more = [f"and {len(why) - lines + 1} more"] if len(why) > lines else []
    return "\n".join([*why[: lines - 1 if more else lines], *more])


def show(rows: Sequence[Row]) -> None:
    print_table(HEADER, [(row.cells(), COLOURS.get(row.state, "yellow")) for row in rows])


def print_table(header: Sequence[str], rows: Sequence[tuple[Sequence[str], str]], title: str | None = None) -> None:
    """`rows`: cells and the style of each. As wide as the terminal; in a log not folded to 80 columns."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*header, title=title)
    for cells, style in rows:
        table.add_row(*map(escape, cells), style=style)
    print_any_text()
    Console(width=None if sys.stdout.isatty() else LOG_WIDTH).print(table)


def print_any_text() -> None:
    """What the locale's encoding lacks is printed as `\\xe4`: no run ends because of a name."""
    if reconfigure := getattr(sys.stdout, "reconfigure", None):  # colorama, which DVC starts, passes it on
        reconfigure(errors="backslashreplace")


def literal(text: str) -> str:
    """Text as Markdown that shows it as it is: a label or a file name in an error is no HTML, link or cell."""
    return text.translate(MARKDOWN)


def markdown(rows: Sequence[Row]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(literal(cell).replace(chr(10), '<br>') for cell in cells)} |"

    return "\n".join([line(HEADER), line(["---"] * len(HEADER)), *(line(row.cells()) for row in rows)])
