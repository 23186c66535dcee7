"""A report as Markdown, for a README or an issue."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edge.bench.report.results import Document, labels, verdict, winner_index
from edge.bench.report.tables import Table, machine_lines, notes, tables
from edge.runtime.printing import printable_line

# An underscore inside a word is not markup.
_SPECIAL = re.compile(r"([\\`*\[\]|~$#@]|(?<!\w)_|_(?!\w))")


def markdown(document: Document, pictures: Mapping[str, str] | None = None) -> str:
    """The whole report.

    Args:
        document: the JSON document.
        pictures: plots to show, caption → relative path.
    """
    parts = ["# Benchmark", f"**{_escape(verdict(document))}**"]
    for index, table in enumerate(tables(document)):
        parts += [f"## {_escape(table.title)}"] if index else []
        parts.append(
            _table(
                table.columns,
                [[_escape(c) for c in _cells(table, n)] for n in range(len(table.lines))],
                table.left,
            )
        )
        if index == 0:
            parts += [_list(notes(document))]
            parts += [f"![{caption}]({file})" for caption, file in (pictures or {}).items()]
    parts += _worst(document)
    parts += [
        "## Machine",
        _table(("", ""), [[_escape(n), _escape(v)] for n, v in machine_lines(document)], 2),
    ]
    if document.get("command"):
        parts.append(_code_block(printable_line(document["command"])))
    return "\n\n".join(parts) + "\n"


def _cells(table: Table, number: int) -> list[str]:
    line = table.lines[number]
    return [line.cells[0] + " ←" if line.winner else line.cells[0], *line.cells[1:]]


def _worst(document: Document) -> list[str]:
    """The winner's worst rows: input, target and answer side by side."""
    index = winner_index(document)
    rows = [] if index is None else document["results"][index]["accuracy"].get("worst", [])
    if index is None or not rows:
        return []
    lines = [
        [
            str(row.get("line") or ""),
            *(_code(row[name]) for name in ("input", "target", "prediction")),
            f"{row['rouge_l']:.2f}",
        ]
        for row in rows
    ]
    heading = f"## Worst rows of {_escape(labels(document)[index])}"
    return [heading, _table(("line", "input", "target", "answer", "ROUGE-L"), lines, 4)]


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> str:
    rule = ["---" if index < left else "---:" for index in range(len(columns))]
    rows = [[_escape(column) for column in columns], rule, *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _list(items: Sequence[str]) -> str:
    return "\n".join(f"* {_escape(item)}" for item in items)


def _escape(text: str) -> str:
    """Text with Markdown and HTML escaped."""
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, entity)
    return _SPECIAL.sub(r"\\\1", text)


def _code(text: str) -> str:
    """A code span for a table's cell: nothing in it is read as markup, mention or link."""
    plain = printable_line(text).replace("|", "\\|")
    if not plain.strip():
        return ""
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    return f"{fence} {plain} {fence}"


def _code_block(text: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}sh\n{text}\n{fence}"
