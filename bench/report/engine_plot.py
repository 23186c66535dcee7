"""Bar chart of engine speeds and rooflines, from the JSON document of `edge bench-engines`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.bench.report.plots import check_matplotlib, plot_style
from edge.runtime.errors import DataError, UsageError
from edge.runtime.platform.atomic import new_file
from edge.runtime.platform.json_file import read_json
from edge.runtime.printing import printable_line, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SUFFIXES = (".svg", ".png")
_MAX_BYTES = 64 << 20
_MAX_NAME = 60
# A white card is readable on light and dark pages.
_EDGE, _BASELINE, _TEXT, _TARGET = "#0072b2", "#b8c0c8", "#1f2328", "#c0392b"


@dataclass(frozen=True)
class Bar:
    """An engine's time for one answer, and the least possible one (or None), in milliseconds."""

    label: str
    is_edge: bool
    p5: float
    p50: float
    p95: float
    roofline: float | None


@dataclass(frozen=True)
class Panel:
    """The engines measured on one model, the fastest first."""

    title: str
    subtitle: str
    target_ms: float
    bars: tuple[Bar, ...]


def write_engine_plot(source: str | Path, output: str | Path) -> None:
    """Draw the p50 of every engine with its roofline, whiskers from p5 to p95, and the target.

    Args:
        source: A JSON file that `edge bench-engines --json` wrote; one panel per model.
        output: An .svg or .png file. The same source gives the same bytes.

    Raises:
        UsageError: The output has another suffix.
        DataError: The file is not a report of engines, or no engine was measured.
        MissingExtraError: matplotlib is not installed.
        EdgeError: The output can't be written.
    """
    output = Path(output)
    if output.suffix not in _SUFFIXES:
        raise UsageError(f"--plot {output}: the file name must end in {' or '.join(_SUFFIXES)}")
    check_matplotlib()
    panels = read_panels(source)
    with plot_style("engines"):
        from matplotlib.figure import Figure

        longest = max(len(panel.bars) for panel in panels)
        figure = Figure(
            figsize=(4.4 * len(panels) + 1, 0.95 + 0.28 * longest),
            facecolor="white",
            layout="constrained",
        )
        for place, panel in enumerate(panels):
            _draw(figure.add_subplot(1, len(panels), place + 1), panel)
        metadata = {"Software": None} if output.suffix == ".png" else {"Date": None}
        with new_file(output) as staging:
            figure.savefig(staging, format=output.suffix[1:], dpi=150, metadata=metadata)


def read_panels(source: str | Path) -> list[Panel]:
    """Read the panels of a report, those without a measured engine left out.

    Raises:
        DataError: The file is not a report of engines, or no engine was measured.
    """
    path = Path(source)
    try:
        document = read_json(path, _MAX_BYTES)
        panels = [_panel(report) for report in document["reports"]]
    except OSError as error:
        raise DataError(f"can't be read ({error.strerror})", path=path) from None
    except ValueError as error:
        raise DataError(str(error), path=path) from None
    except (KeyError, TypeError, AttributeError):
        raise DataError(
            "not a report of edge bench-engines; --plot draws only those", path=path
        ) from None
    panels = [panel for panel in panels if panel.bars]
    if not panels:
        raise DataError("no engine was measured", path=path)
    return panels


def _panel(report: Mapping[str, Any]) -> Panel:
    settings, speeds = report["settings"], []
    rooflines = {str(bits): float(one["ms"]) for bits, one in report["rooflines"].items()}
    for row in report["rows"]:
        if (speed := row["speed"]) is None:
            continue
        p5, p50, p95 = (float(speed[name]) for name in ("p5", "p50", "p95"))
        label = str(row["engine"])
        if str(row["quantization"]).lower() not in label.lower():
            label += f" {row['quantization']}"
        roofline = rooflines.get(str(row["bits"]))
        speeds.append(Bar(_short(label), label.startswith("edge "), p5, p50, p95, roofline))
    tokens = f"{int(settings['input_tokens'])} tokens in, {int(settings['new_tokens'])} out"
    weights = ", random weights: speed only" if report["random_weights"] else ""
    return Panel(
        _short(str(report["model"])),
        tokens + weights,
        float(settings["target_ms"]),
        tuple(sorted(speeds, key=lambda bar: bar.p50)),
    )


def _draw(axes: Axes, panel: Panel) -> None:
    heights = range(len(panel.bars))
    axes.barh(
        heights,
        [bar.p50 for bar in panel.bars],
        0.7,
        color=[_EDGE if bar.is_edge else _BASELINE for bar in panel.bars],
        zorder=2,
    )
    axes.errorbar(
        [bar.p50 for bar in panel.bars],
        heights,
        xerr=[
            [max(0.0, bar.p50 - bar.p5) for bar in panel.bars],
            [max(0.0, bar.p95 - bar.p50) for bar in panel.bars],
        ],
        fmt="none",
        ecolor=_TEXT,
        elinewidth=0.8,
        capsize=1.5,
        zorder=3,
    )
    for height, bar in enumerate(panel.bars):
        ratio = ""
        if bar.roofline:
            ends = (height - 0.42, height + 0.42)
            axes.plot([bar.roofline] * 2, ends, color=_TEXT, linewidth=2, zorder=4)
            ratio = f" ({bar.p50 / bar.roofline:.1f} ×)"
        axes.annotate(
            f"{bar.p50:.1f}{ratio}",
            (bar.p95, height),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=_TEXT,
            fontsize=8,
            fontweight="bold" if bar.is_edge else "normal",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    axes.axvline(panel.target_ms, color=_TARGET, linestyle="--", linewidth=1, zorder=1)
    axes.set_yticks(heights, [bar.label for bar in panel.bars])
    for label, bar in zip(axes.get_yticklabels(), panel.bars, strict=True):
        label.set_fontweight("bold" if bar.is_edge else "normal")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max(panel.target_ms, *(bar.p95 for bar in panel.bars)))
    axes.set_title(f"{panel.title}\n{panel.subtitle}", fontsize=9)
    axes.set_xlabel(
        f"ms per answer: p50, p5–p95; dashed: target {panel.target_ms:g} ms\n"
        "black: roofline of the same bits (× roofline)"
    )
    axes.tick_params(axis="y", length=0)


def _short(text: str) -> str:
    """The text in one printable line of limited length."""
    return shorten(printable_line(text), _MAX_NAME)
