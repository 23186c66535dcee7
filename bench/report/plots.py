"""Plots of a report, by matplotlib without a display: SVG for the page, PNG for READMEs."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.bench.report.results import Document, labels, metric, metric_name, points
from edge.runtime.platform.atomic import new_file
from edge.runtime.registry import missing_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's color-blind safe palette; more results repeat it with another marker.
_COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7f7f7f")
_MARKERS = "osD^vPX*"
_TARGET = "#c0392b"
_MAX_DOTS = 200  # for each result; more samples are thinned to evenly spaced order statistics
_WIDE = 8.0  # above this ratio of the largest to the smallest time, the axis is logarithmic
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def check_matplotlib() -> None:
    """Check that plots can be drawn, before anything is measured.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise missing_extra("a plot", "matplotlib", "bench") from None


def svg_plots(document: Document) -> dict[str, str]:
    """The plots as `<svg>` elements by caption; plots without data are left out.

    Text is kept as text. The same document gives the same bytes.
    """
    drawn = {}
    for name, (caption, draw) in PLOTS.items():
        with plot_style(name):
            figure = draw(document)
            if figure is None:
                continue
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
        text = buffer.getvalue()
        drawn[caption] = text[text.index("<svg") :]
    return drawn


def write_plots(document: Document, folder: str | Path) -> dict[str, Path]:
    """Write the plots as PNG files into `folder`, created if needed; returns caption → path.

    Raises:
        EdgeError: the folder is not writable.
    """
    written = {}
    for name, (caption, draw) in PLOTS.items():
        with plot_style(name):
            figure = draw(document)
            if figure is None:
                continue
            path = Path(folder) / f"{name}.png"
            with new_file(path) as staging:
                figure.savefig(staging, format="png", dpi=150, metadata={"Software": None})
            written[caption] = path
    return written


def plot_style(name: str) -> AbstractContextManager[None]:
    """The style of every plot; the same name gives the same ids in an SVG."""
    import matplotlib

    return matplotlib.rc_context(
        {
            "text.parse_math": False,  # a $ in a name is a dollar
            "svg.fonttype": "none",
            "svg.hashsalt": f"edge-{name}",
            "font.family": ["DejaVu Sans", "sans-serif"],
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


def pareto_figure(document: Document) -> Figure | None:
    """Accuracy against p95, with the Pareto front and the target; None without results."""
    from matplotlib.figure import Figure

    found = points(document)
    if not found:
        return None
    names = labels(document)
    scale = 1.0 if metric(document) == "bleu" else 100.0
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for point in found:
        score, (low, high) = point.score * scale, point.interval
        axes.errorbar(
            point.p95,
            score,
            yerr=[[max(0.0, score - low * scale)], [max(0.0, high * scale - score)]],
            fmt=_MARKERS[point.index // len(_COLORS) % len(_MARKERS)],
            color=_COLORS[point.index % len(_COLORS)],
            markeredgecolor="black" if point.front else "none",
            markersize=8 if point.front else 6,
            elinewidth=0.8,
            label=_legend(names[point.index]),
            zorder=3,
        )
    front = sorted((p for p in found if p.front), key=lambda p: p.p95)
    axes.step(
        [p.p95 for p in front],
        [p.score * scale for p in front],
        where="post",
        color="#999999",
        linewidth=1,
        label="Pareto front",
        zorder=2,
    )
    _time_axis(axes, document, [p.p95 for p in found])
    axes.set_xlabel("p95 latency, ms (left is faster)")
    unit = "" if scale == 1 else ", %"
    axes.set_ylabel(f"{metric_name(document)}{unit} (with 95 % interval)")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def latency_figure(document: Document) -> Figure | None:
    """Each result's samples as dots over its quartiles; None without samples."""
    from matplotlib.figure import Figure

    names = labels(document)
    kept = [
        (names[index], index, np.sort(np.asarray(one["latency"]["samples_ms"], np.float64)))
        for index, one in enumerate(document["results"])
        if one["latency"] and one["latency"].get("samples_ms")
    ]
    if not kept:
        return None
    figure = Figure(figsize=(8, 0.9 + 0.38 * len(kept)), layout="constrained")
    axes = figure.add_subplot()
    random = np.random.default_rng(0)
    for height, (_, index, samples) in enumerate(kept):
        dots = samples
        if len(dots) > _MAX_DOTS:
            dots = samples[np.linspace(0, len(samples) - 1, _MAX_DOTS).round().astype(int)]
        color = _COLORS[index % len(_COLORS)]
        jitter = height + random.uniform(-0.26, 0.26, len(dots))
        axes.plot(dots, jitter, ".", color=color, markersize=3, alpha=0.5, zorder=2)
        p5, p25, p50, p75, p95 = np.percentile(samples, (5, 25, 50, 75, 95))
        axes.plot([p5, p95], [height, height], color="black", linewidth=1, zorder=3)
        axes.barh(height, p75 - p25, 0.5, p25, fill=False, edgecolor="black", zorder=4)
        axes.plot([p50, p50], [height - 0.25, height + 0.25], color="black", linewidth=2, zorder=5)
    axes.set_yticks(range(len(kept)), [name for name, *_ in kept])
    axes.invert_yaxis()
    _time_axis(axes, document, [float(v) for *_, s in kept for v in (s[0], s[-1])])
    axes.set_xlabel("latency, ms (dots: calls; box: quartiles; line: p5 to p95)")
    axes.grid(axis="x", alpha=0.25)
    return figure


def _legend(name: str) -> str:
    """matplotlib omits names with a leading underscore from a legend."""
    return f" {name}" if name.startswith("_") else name


def _time_axis(axes: Axes, document: Document, times: list[float]) -> None:
    """An axis from 0, or logarithmic for a wide range of times; the target is always visible."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    target = float(document["target_ms"])
    axes.axvline(target, color=_TARGET, linestyle="--", linewidth=1, zorder=1)
    axes.annotate(
        f"target {target:g} ms",
        (target, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color=_TARGET,
    )
    low, high = min([*times, target]), max([*times, target])
    if low > 0 and high / low > _WIDE:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.3, high * 1.3)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, high * 1.08)


# File name → (caption, function that draws it).
PLOTS: dict[str, tuple[str, Callable[[Document], Any]]] = {
    "pareto": ("Accuracy against latency", pareto_figure),
    "latency": ("Latency of single calls", latency_figure),
}
