"""A report as Markdown, for a README or an issue."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edge.bench.report.results import Document, best, labels, printable, verdict
from edge.bench.report.tables import Table, machine_lines, notes, tables

# An underscore inside a word is no markup.
_SPECIAL = re.compile(r"([\\`*\[\]|~$#@]|(?<!\w)_|_(?!\w))")


def markdown(document: Document, pictures: Mapping[str, str] | None = None) -> str:
    """The whole report; `pictures` are files beside it by what they show."""
    parts = ["# Benchmark", f"**{_escape(verdict(document))}**"]
    for place, table in enumerate(tables(document)):
        parts += [f"## {_escape(table.title)}"] if place else []
        parts.append(
            _table(
                table.columns,
                [[_escape(c) for c in _cells(table, n)] for n in range(len(table.lines))],
                table.left,
            )
        )
        if place == 0:
            parts += [_list(notes(document))]
            parts += [f"![{what}]({file})" for what, file in (pictures or {}).items()]
    parts += _worst(document)
    parts += [
        "## Machine",
        _table(("", ""), [[_escape(n), _escape(v)] for n, v in machine_lines(document)], 2),
    ]
    if document.get("command"):
        parts.append(_code_block(printable(document["command"])))
    return "\n\n".join(parts) + "\n"


def _cells(table: Table, number: int) -> list[str]:
    line = table.lines[number]
    return [line.cells[0] + " ←" if line.best else line.cells[0], *line.cells[1:]]


def _worst(document: Document) -> list[str]:
    """The worst rows of the best result, input, target and answer side by side."""
    place = best(document)
    rows = [] if place is None else document["results"][place]["accuracy"].get("worst", [])
    if place is None or not rows:
        return []
    lines = [
        [
            str(row.get("line") or ""),
            *(_code(row[name]) for name in ("input", "target", "prediction")),
            f"{row['rouge_l']:.2f}",
        ]
        for row in rows
    ]
    heading = f"## Worst rows of {_escape(labels(document)[place])}"
    return [heading, _table(("line", "input", "target", "answer", "ROUGE-L"), lines, 4)]


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> str:
    rule = ["---" if place < left else "---:" for place in range(len(columns))]
    rows = [[_escape(column) for column in columns], rule, *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _list(items: Sequence[str]) -> str:
    return "\n".join(f"* {_escape(item)}" for item in items)


def _escape(text: str) -> str:
    """Text that Markdown shows as it is, without HTML."""
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, entity)
    return _SPECIAL.sub(r"\\\1", text)


def _code(text: str) -> str:
    """A code span in a table's cell: nothing in it is markup, a mention or a link."""
    plain = printable(text).replace("|", "\\|")
    if not plain.strip():
        return ""
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    return f"{fence} {plain} {fence}"


def _code_block(text: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}sh\n{text}\n{fence}"
