"""Prints rows for people so that no identifier is broken, however narrow the terminal is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from whet.json_types import Json

_GAP = 2  # blanks between two columns


def print_rows(
    out: Console, rows: Sequence[Mapping[str, Json]], names: Sequence[str], title: str = ""
) -> None:
    """Print rows as a table, or one under the other where the table would break a word.

    Sentences wrap between words. A run id, a label, a path or a number stays on one line, so that
    it can be copied into the next command.
    """
    cells = [["" if row.get(name) is None else str(row[name]) for name in names] for row in rows]
    if title:
        out.print(Text(title, style="italic"), soft_wrap=True)
    widths = column_widths(names, cells, out.width)
    if widths is None:
        _print_records(out, names, cells)
        return
    table = Table(box=None, header_style="bold", padding=0, pad_edge=False)
    for position, (name, width) in enumerate(zip(names, widths, strict=True)):
        if position:
            table.add_column("", width=_GAP)
        table.add_column(Text(name), width=width, overflow="fold")
    for row in cells:
        table.add_row(*_with_gaps([Text(cell) for cell in row]))
    out.print(table)


def _with_gaps(cells: Sequence[Text]) -> list[Text]:
    spread = [part for cell in cells for part in (Text(), cell)]
    return spread[1:]


def column_widths(
    names: Sequence[str], cells: Sequence[Sequence[str]], width: int
) -> list[int] | None:
    """Return the width of each column, or None where the longest words need more than `width`."""
    columns = [[name, *(row[position] for row in cells)] for position, name in enumerate(names)]
    least = [max(map(_longest_word, column)) for column in columns]
    most = [max(map(_longest_line, column)) for column in columns]
    spare = width - _GAP * (len(names) - 1) - sum(least)
    if spare < 0:
        return None
    # Those that want least get it first: then only columns of sentences wrap.
    widths = list(least)
    order = sorted(range(len(names)), key=lambda position: most[position] - least[position])
    for number, position in enumerate(order):
        share = spare // (len(order) - number)
        given = min(share, most[position] - least[position])
        widths[position] += given
        spare -= given
    return widths


def _longest_word(text: str) -> int:
    return max((Text(word).cell_len for word in text.split()), default=0)


def _longest_line(text: str) -> int:
    return max((Text(line).cell_len for line in text.split("\n")), default=0)


def _print_records(out: Console, names: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    key = max(Text(name).cell_len for name in names)
    for number, row in enumerate(cells):
        if number:
            out.print()
        for name, cell in zip(names, row, strict=True):
            if cell:
                label = Text(name.ljust(key + _GAP), style="bold")
                out.print(label.append(cell, style="not bold"), soft_wrap=True)
