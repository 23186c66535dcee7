"""Table and notes of `edge compile`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from edge.bench.compiler.report import Line
    from edge.bench.compiler.run import Outcome

# Lines of the table: measured on all rows, and on a part of them.
_MAX_LINES, _MAX_SCREENED = 16, 6


def shown(lines: list[Line]) -> list[Line]:
    """The lines shown on the terminal; the report has all of them."""
    full = [line for line in lines if line.score is not None]
    best = [line for line in full if line.pareto or line.outcome == "chosen"]
    more = [line for line in full if line not in best][: max(0, _MAX_LINES - len(best))]
    screened = [line for line in lines if line.score is None][:_MAX_SCREENED]
    return [line for line in lines if line in (*best, *more, *screened)]


def outcome_table(outcome: Outcome) -> Table:
    """The trials: first those measured on all rows, fastest first."""
    from rich.table import Table
    from rich.text import Text

    from edge.bench.compiler.report import drop_text

    found = outcome.found
    metric = found["metric"].replace("_", " ")
    table = Table(
        title=f"{found['rows']} rows; {metric} of the source model {found['source_score']:.2%},"
        f" at most {found['max_drop']:.2%} lower; p95 target {found['target_ms']:g} ms"
    )
    table.add_column("candidate (● Pareto)")
    for name in ("size", metric, "drop", "p50", "p95", "answers"):
        table.add_column(name, justify="right")
    table.add_column("")
    for line in shown(outcome.lines):
        style = "green" if line.outcome == "chosen" else "" if line.score is not None else "dim"
        table.add_row(
            f"{'● ' if line.pareto else '  '}{line.name}",
            f"{line.size_mb:.1f} MB",
            "" if line.score is None else f"{line.score:.2%}",
            drop_text(line.drop, line.sample_drop),
            f"{line.p50_ms:.2f} ms",
            f"{line.p95_ms:.2f} ms",
            str(line.answers),
            Text(line.outcome),
            style=style,
        )
    return table


def notes(outcome: Outcome) -> list[str]:
    """How the table was measured, the verdict, failures and advice."""
    found = outcome.found
    machine, space = found["machine"], found["space"]
    lines = [
        f"Latency from text to text: batch 1, greedy search, to the end of each answer."
        f" Each candidate runs in a separate process. {machine['cores']} cores, {machine['cpu']}."
        f" {len(found['tried'])} of {space['combinations']} combinations timed"
        f" in {found['seconds']:.0f} s.",
        f"Verdict: {outcome.verdict}",
    ]
    reasons: dict[str, list[str]] = {}
    for name, why in found["failed"].items():
        reasons.setdefault(why, []).append(name)
    lines += [f"not available: {', '.join(names)}: {why}" for why, names in reasons.items()]
    if hidden := len(found["tried"]) - len(shown(outcome.lines)):
        lines.append(f"{hidden} more are in the report.")
    if not found["complete"]:
        lines.append("The time limit ended the search early.")
    if outcome.advice:
        lines.append("What would help:")
        lines += [f"  {line}" for line in outcome.advice]
    lines.append(f"Report: {', '.join(str(path) for path in outcome.reports)}")
    if outcome.work:
        lines.append(
            f"Measurements are kept in {outcome.work}. Run the same command to continue, with"
            " --force if the output exists, or with --keep-best to write the best artifact."
            " Otherwise remove the folder."
        )
    return lines
