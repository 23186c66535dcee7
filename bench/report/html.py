"""A report as one self-contained HTML page: no network, no scripts."""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING

from edge.bench.report.plots import check_matplotlib, svg_plots
from edge.bench.report.results import Document, labels, verdict, winner_index
from edge.bench.report.tables import machine_lines, notes, tables
from edge.runtime.registry import missing_extra

if TYPE_CHECKING:
    from jinja2 import Template


def html(document: Document) -> str:
    """The page. All text is escaped; matplotlib escapes the text of the plots.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    template = page_template()
    from markupsafe import Markup

    names = labels(document)
    worst = [
        (names[index], result["accuracy"]["worst"], index == winner_index(document))
        for index, result in enumerate(document["results"])
        if result["accuracy"] and result["accuracy"].get("worst")
    ]
    return template.render(
        document=document,
        verdict=verdict(document),
        tables=tables(document),
        notes=notes(document),
        plots={caption: Markup(svg) for caption, svg in svg_plots(document).items()},
        worst=worst,
        machine=machine_lines(document),
    )


@functools.cache
def page_template() -> Template:
    """The page's template, part of this package: never untrusted.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    check_matplotlib()
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise missing_extra("an HTML report", "jinja2", "bench") from None
    text = (resources.files("edge.bench.report") / "page.html").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)
