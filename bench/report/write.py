"""Files that a report is written to."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from edge.bench.report.html import html, page_template
from edge.bench.report.markdown import markdown
from edge.bench.report.plots import check_matplotlib, write_plots
from edge.bench.report.results import Document
from edge.runtime.errors import EdgeError, UsageError
from edge.runtime.platform.atomic import new_file
from edge.runtime.platform.destination import check_writable

STDOUT = Path("-")


@dataclass(frozen=True)
class Outputs:
    """Where to write each report; None is not written.

    `json` may be `-`, standard output. `plots` is a folder.
    """

    json: Path | None = None
    markdown: Path | None = None
    html: Path | None = None
    plots: Path | None = None

    def __bool__(self) -> bool:
        return any((self.json, self.markdown, self.html, self.plots))

    def check(self) -> None:
        """Check that everything can be written, before anything is measured.

        Raises:
            MissingExtraError: a library that a report needs is not installed.
            UsageError: a destination is not writable, a file is a folder, or `plots` is a file.
        """
        if self.html:
            page_template()
        if self.plots:
            check_matplotlib()
            if self.plots.is_file():
                raise UsageError(f"{self.plots} is a file; --plots must name a folder")
            _check_writable("--plots", self.plots, self.plots)
        for name in ("json", "markdown", "html"):
            path: Path | None = getattr(self, name)
            if path is None or (name == "json" and path == STDOUT):
                continue
            if path.is_dir():
                raise UsageError(f"{path} is a folder; --{name} must name a file")
            _check_writable(f"--{name}", path, path.parent)


def _check_writable(option: str, destination: Path, folder: Path) -> None:
    """Check that a file can be created in `folder`, or in the one that it will be created in.

    Raises:
        UsageError: it can't.
    """
    try:
        check_writable(folder / "file")
    except EdgeError as error:
        reason = str(error).partition(" can't be written: ")[2]
        raise UsageError(f"{option} {destination} can't be written: {reason}") from None


def write_reports(document: Document, outputs: Outputs) -> None:
    """Write the files that are asked for, each completely or not at all.

    The Markdown file shows the plots if both are written.

    Raises:
        MissingExtraError: a library that a report needs is not installed.
        EdgeError: a destination is not writable.
    """
    if outputs.json:  # first: if another one fails, it can be made from this one
        text = json.dumps(document, indent=2) + "\n"
        if outputs.json == STDOUT:
            sys.stdout.write(text)
        else:
            _write(outputs.json, text)
    pictures = write_plots(document, outputs.plots) if outputs.plots else {}
    if outputs.markdown:
        folder = Path(os.path.abspath(outputs.markdown)).parent
        links = {
            caption: Path(os.path.relpath(path.absolute(), folder)).as_posix()
            for caption, path in pictures.items()
        }
        _write(outputs.markdown, markdown(document, links))
    if outputs.html:
        _write(outputs.html, html(document))


def _write(path: Path, text: str) -> None:
    # JSON can hold lone surrogates, which UTF-8 can't.
    with new_file(path) as staging:
        staging.write_text(text, encoding="utf-8", errors="replace")
