"""`edge compile`: the fastest artifact of a model within an accuracy budget, found by search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.options import column_options

if TYPE_CHECKING:
    from rich.table import Table

    from edge.bench.compiler.report import Line
    from edge.bench.compiler.run import Outcome

# Lines of the table: of those that all rows measured, and of those that some did.
_MOST_LINES, _MOST_SCREENED = 16, 6


@click.command(context_settings={"show_default": True})
@click.argument("model")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Rows with targets, or a folder: its dev rows judge, its train rows make shortlists.",
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The artifact.")
@click.option("--target-ms", type=float, default=100.0, help="p95 to meet.")
@click.option(
    "--max-drop",
    type=float,
    default=0.005,
    help="How far the metric may fall below the source model's, as a fraction.",
)
@click.option("--metric", default="exact_match", help="exact_match, rouge_l or bleu.")
@click.option("--budget", type=click.FloatRange(1), help="Seconds to search; default: no limit.")
@click.option("--limit", type=click.IntRange(1), help="Use the first rows only.")
@click.option("--format", "formats", multiple=True, help="Try this format only (repeatable).")
@click.option("--quantize", "quantizations", multiple=True, help="Try this only (repeatable).")
@click.option("--threads", help="Numbers of threads to try, such as 1,2; default: up to all cores.")
@click.option(
    "--shortlist",
    type=click.Path(path_type=Path),
    help="Training rows: try vocabulary shortlists made of their targets, too (onnx).",
)
@click.option("--no-drafts", is_flag=True, help="Don't try drafts from the input (onnx).")
@click.option("--exhaustive", is_flag=True, help="Measure every combination on all rows instead.")
@click.option("--keep-best", is_flag=True, help="Write the best artifact even if it is too slow.")
@click.option("--force", is_flag=True, help="Replace an existing artifact once the new is ready.")
@click.option("--revision", help="Branch, tag or commit of a hub model.")
@click.option("--prefix", help="Prompt around each input, as for edge export.")
@click.option("--max-input-tokens", type=click.IntRange(1), help="Longest input that is taken.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Most tokens of an answer.")
@column_options
def command(**options: Any) -> None:
    """Find the fastest artifact of MODEL that is accurate enough on --data, and write it.

    Searches formats, quantizations, threads, engine settings, drafts from the input and vocabulary
    shortlists by successive halving: a few answers of many, all rows for the best. What loses more
    than --max-drop against the model's own float32 greedy answers, or fails the parity check, is
    never accepted. A search that was cut off goes on when it is called again. The report lies
    beside the artifact. Exits with 3 if nothing accurate enough meets the target.
    """
    from edge.bench.compiler.run import compile_model
    from edge.cli.display.console import quiet_libraries, status, stdout_console
    from edge.runtime.errors import TargetMissedError

    quiet_libraries()
    request = _request(options)
    with status("reading the model") as progress:

        def show(event: str) -> None:
            progress(event)
            if event.startswith(("skipped", "going on")):
                click.echo(event, err=True)

        outcome = compile_model(request, show)
    stdout_console().print(outcome_table(outcome))
    for note in notes(outcome):
        click.echo(note)
    if not outcome.meets_target:
        left = f"; it was written to {request.output}" if outcome.published else ""
        raise TargetMissedError(f"no artifact meets the target: {outcome.verdict}{left}")
    click.echo(f"\nNext: edge info {request.output}, edge run {request.output} 'your text'")


def _request(options: dict[str, Any]) -> Any:
    from edge.bench.compiler.run import Request
    from edge.cli.commands.tune import parse_threads
    from edge.export.source import SourceModel
    from edge.runtime.rows import Columns, dev_file, read_rows, split_file

    data: Path = options["data"]
    shortlist: Path | None = options["shortlist"]
    path = dev_file(data)
    if shortlist is None and data.is_dir():
        shortlist = split_file(data, "train")
    columns = Columns(input=options["input_column"], target=options["target_column"])
    rows = read_rows(path, columns)[: options["limit"]]
    most = options["max_new_tokens"]
    return Request(
        source=SourceModel.open(options["model"], revision=options["revision"]),
        rows=rows,
        data=path,
        output=options["output"],
        target_ms=options["target_ms"],
        metric=options["metric"],
        max_drop=options["max_drop"],
        formats=options["formats"],
        quantizations=options["quantizations"],
        threads=parse_threads(options["threads"]),
        shortlist=shortlist,
        drafts=not options["no_drafts"],
        budget=options["budget"],
        exhaustive=options["exhaustive"],
        keep_best=options["keep_best"],
        force=options["force"],
        prompt=options["prefix"],
        max_input_tokens=options["max_input_tokens"],
        generation={} if most is None else {"max_new_tokens": most},
        columns=columns,
        command=_command_line(options),
    )


def _command_line(options: dict[str, Any]) -> str:
    """The call with its options, in full but for folders: no path of the machine is kept."""
    context = click.get_current_context()
    words = ["edge compile", Path(options["model"]).name]
    for parameter in context.command.params:
        value = options.get(parameter.name or "")
        if not isinstance(parameter, click.Option) or value in (None, (), False):
            continue
        name = parameter.opts[0]
        for one in value if isinstance(value, tuple) else (value,):
            if value is True:
                words.append(name)
            elif name in ("--data", "--output", "--shortlist") or one != parameter.default:
                words += [name, Path(one).name if isinstance(one, Path) else str(one)]
    return " ".join(words)


def shown(lines: list[Line]) -> list[Line]:
    """The lines for a terminal: the report has all."""
    full = [line for line in lines if line.score is not None]
    best = [line for line in full if line.pareto or line.outcome == "chosen"]
    more = [line for line in full if line not in best][: max(0, _MOST_LINES - len(best))]
    screened = [line for line in lines if line.score is None][:_MOST_SCREENED]
    return [line for line in lines if line in (*best, *more, *screened)]


def outcome_table(outcome: Outcome) -> Table:
    """What was tried: first what all rows measured, the fastest first."""
    from rich.table import Table
    from rich.text import Text

    from edge.bench.compiler.report import drop_text

    found = outcome.found
    metric = found["metric"].replace("_", " ")
    table = Table(
        title=f"{found['rows']} rows; {metric} of the source model {found['source_score']:.2%},"
        f" at most {found['max_drop']:.2%} lower; p95 target {found['target_ms']:g} ms"
    )
    table.add_column("what (● Pareto)")
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
    """What a reader of the table has to know."""
    found = outcome.found
    machine, space = found["machine"], found["space"]
    lines = [
        f"Text to text, batch 1, greedy, to each answer's natural end, a process for each;"
        f" {machine['cores']} cores, {machine['cpu']}."
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
        lines.append("The time budget was spent before the search was finished.")
    if outcome.advice:
        lines.append("What would help:")
        lines += [f"  {line}" for line in outcome.advice]
    lines.append(f"Report: {', '.join(str(path) for path in outcome.reports)}")
    if outcome.work:
        lines.append(
            f"{outcome.work} keeps what was measured: the same command, with --force where the"
            " output exists, goes on from there (--keep-best writes the best); else remove it"
        )
    return lines
