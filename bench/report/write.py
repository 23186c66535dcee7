"""The files that a report is written to."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from edge.bench.report.html import html, page_template
from edge.bench.report.markdown import markdown
from edge.bench.report.plots import check_matplotlib, write_plots
from edge.bench.report.results import Document
from edge.runtime.errors import UsageError
from edge.runtime.platform.atomic import new_file


@dataclass(frozen=True)
class Outputs:
    """Where to write what; None is not written. `plots` is a folder."""

    json: Path | None = None
    markdown: Path | None = None
    html: Path | None = None
    plots: Path | None = None

    def __bool__(self) -> bool:
        return any((self.json, self.markdown, self.html, self.plots))

    def check(self) -> None:
        """Refuse before minutes of measurement what could not be written after them.

        Raises:
            MissingExtraError: a library is not installed.
            UsageError: `plots` is a file.
        """
        if self.html:
            page_template()
        if self.plots:
            check_matplotlib()
            if self.plots.is_file():
                raise UsageError(f"{self.plots} is a file; --plots must name a folder")


def write_reports(document: Document, outputs: Outputs) -> None:
    """Write the files that are asked for, each whole or not at all.

    The Markdown file shows the plots where both are written.

    Raises:
        MissingExtraError: a library is not installed.
        EdgeError: a place can't be written.
    """
    if outputs.json:  # first: whatever fails later can be made from it
        _write(outputs.json, json.dumps(document, indent=2) + "\n")
    pictures = write_plots(document, outputs.plots) if outputs.plots else {}
    if outputs.markdown:
        beside = Path(os.path.abspath(outputs.markdown)).parent
        links = {
            what: Path(os.path.relpath(path.absolute(), beside)).as_posix()
            for what, path in pictures.items()
        }
        _write(outputs.markdown, markdown(document, links))
    if outputs.html:
        _write(outputs.html, html(document))


def _write(path: Path, text: str) -> None:
    # A lone half of a surrogate pair, which JSON can hold, is no UTF-8.
    with new_file(path) as staging:
        staging.write_text(text, encoding="utf-8", errors="replace")
