"""Curves of a run's loss, learning rate and speed: PNG, terminal chart and TensorBoard."""

from __future__ import annotations

from pathlib import Path

from edge.runtime.registry import is_installed
from edge.train.events import Event
from edge.train.run_folder import RunView, read_run

# Title of each panel, from top to bottom, and the curves in it.
PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("loss", ("loss", "eval_loss")),
    ("learning rate", ("learning_rate",)),
    ("tokens/s", ("tokens_per_second",)),
)
_TRACKED = ("loss", "learning_rate", "tokens_per_second", "padding_waste")


def write_curves(log: Path, image: Path) -> bool:
    """Draw the curves of a run's log as a PNG.

    Returns:
        False if matplotlib (extra plots) is not installed.
    """
    if not is_installed("matplotlib"):
        return False
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    view = read_run(log)
    panels = _panels_with_data(view)
    figure = Figure(figsize=(8, 2.4 * max(1, len(panels))), layout="constrained")
    for number, (title, curves) in enumerate(panels, 1):
        axes = figure.add_subplot(len(panels), 1, number)
        for name, (steps, values) in curves.items():
            axes.plot(steps, values, marker="o" if len(steps) < 20 else None, label=name)
        axes.set_title(title)
        axes.set_xlabel("step")
        if len(curves) > 1:
            axes.legend()
    figure.savefig(image, dpi=120, format="png")
    return True


def _panels_with_data(
    view: RunView,
) -> list[tuple[str, dict[str, tuple[list[int], list[float]]]]]:
    panels = []
    for title, names in PANELS:
        curves = {name: view.curve(name) for name in names}
        curves = {name: curve for name, curve in curves.items() if curve[0]}
        if curves:
            panels.append((title, curves))
    return panels


def terminal_chart(view: RunView, title: str, names: tuple[str, ...], width: int) -> str:
    """A chart of the curves `names` as text, `width` columns wide; empty if there is no data.

    Raises:
        ModuleNotFoundError: plotext is not installed.
    """
    import plotext

    figure = plotext.figure
    figure.clear()
    figure.plot_size(width, 14)
    shown = []
    for name, marker in zip(names, ("•", "o"), strict=False):
        steps, values = view.curve(name)
        if steps:
            figure.draw(figure.signal(steps, values, marker=marker))
            shown.append(f"{marker} {name}" if len(names) > 1 else name)
    if not shown:
        return ""
    figure.title(f"{title}: {', '.join(shown)}" if len(names) > 1 else title)
    text: str = figure.build().string(colorless=True)
    return text


class TensorBoardLog:
    """Writes progress and evaluations as TensorBoard scalars into `folder`."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def on_event(self, event: Event) -> None:
        """Write the event, if it has values to plot."""
        if event.kind == "progress" and event.loss is not None:
            for name in _TRACKED:
                value = getattr(event, name)
                if value is not None:
                    self._writer.add_scalar(f"train/{name}", value, event.step)
        elif event.kind == "eval":
            for name, value in event.details.items():
                self._writer.add_scalar(f"eval/{name}", value, event.step)
        elif event.kind == "end":
            self._writer.close()
