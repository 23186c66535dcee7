"""`edge compile`: search for the fastest artifact of a model within an accuracy budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge.cli.base import Command
from edge.cli.options import FORCE_HELP, FORMATS, column_options, limit_option, output_option
from edge.cli.param_types import COUNT, INPUT, POSITIVE, Duration, IntegerList, completing


@click.command(cls=Command)
@click.argument("model")
@click.option(
    "--data",
    required=True,
    type=INPUT,
    metavar="FILE",
    help="Rows with targets, or a folder: dev rows measure, train rows make shortlists.",
)
@output_option("Folder for the artifact.", metavar="FOLDER")
@click.option("--force", is_flag=True, help=FORCE_HELP)
@click.option(
    "--target-ms", type=POSITIVE, default=100.0, metavar="MS", help="Target of the p95 latency."
)
@click.option(
    "--max-drop",
    type=float,
    default=0.005,
    metavar="FRACTION",
    help="Largest accepted drop of the metric below the source model's.",
)
@click.option("--metric", default="exact_match", help="exact_match, rouge_l or bleu.")
@click.option(
    "--time-limit", type=Duration(1), show_default="none", help="Time for the search, e.g. 10m."
)
@limit_option
@click.option(
    "-f",
    "--format",
    "formats",
    multiple=True,
    metavar="NAME",
    shell_complete=completing(FORMATS),
    show_default="all",
    help="Format to try; repeatable.",
)
@click.option(
    "-q",
    "--quantize",
    "quantizations",
    multiple=True,
    metavar="NAME",
    show_default="all",
    help="Quantization to try; repeatable.",
)
@click.option(
    "--threads-to-try",
    type=IntegerList(),
    metavar="N,...",
    show_default="up to the physical cores",
    help="Numbers of threads to try, e.g. 1,2.",
)
@click.option(
    "--shortlist",
    type=INPUT,
    metavar="FILE",
    show_default="the train split of --data",
    help="Training rows; also try vocabulary shortlists made from their targets (onnx).",
)
@click.option("--no-drafts", is_flag=True, help="Do not try drafts from the input.")
@click.option("--exhaustive", is_flag=True, help="Measure every combination on all rows.")
@click.option("--keep-best", is_flag=True, help="Write the best artifact even if it is too slow.")
@click.option("--revision", help="Branch, tag or commit of a hub model.")
@click.option("--prefix", metavar="TEXT", help="Prompt around each input, as for edge export.")
@click.option("--max-input-tokens", type=COUNT, metavar="N", help="Maximum tokens of an input.")
@click.option("--max-new-tokens", type=COUNT, metavar="N", help="Maximum tokens of an answer.")
@column_options
def command(**options: Any) -> None:
    """Search for the fastest artifact of MODEL that is accurate enough on --data, and write it.

    The search covers formats, quantizations, threads, engine settings, drafts from the input and
    vocabulary shortlists. It uses successive halving: a few answers from many candidates, all rows
    for the best. A candidate is rejected if it loses more than --max-drop against the float32
    greedy answers of the model, or fails the parity check.

    Run the same command again to resume an interrupted search. The report is written beside the
    artifact. Exits with 3 if no candidate is accurate enough and meets the target.
    """
    from edge.runtime.registry import require

    require("edge compile", "export", "torch", "transformers", "safetensors")
    require("edge compile", "bench", "rouge_score", "sacrebleu")
    from edge.bench import compile as compile_model
    from edge.bench.compiler.events import SearchEvent
    from edge.bench.signals import signals_end_command
    from edge.cli.display.compile import notes, outcome_table
    from edge.cli.display.console import quiet_libraries, status
    from edge.cli.display.tables import print_table
    from edge.runtime.errors import TargetMissedError
    from edge.runtime.rows import Columns

    quiet_libraries()
    output: Path = options["output"]

    def kept() -> str:
        return "the results so far are kept; run the same command again to resume"

    with signals_end_command(kept), status("reading the model") as progress:

        def show(event: SearchEvent) -> None:
            progress(event.message)
            if event.kind != "started":
                click.echo(event.message, err=True)

        outcome = compile_model(
            options["model"],
            options["data"],
            output,
            target_ms=options["target_ms"],
            metric=options["metric"],
            max_drop=options["max_drop"],
            time_limit=options["time_limit"],
            formats=options["formats"],
            quantizations=options["quantizations"],
            threads=options["threads_to_try"],
            shortlist=options["shortlist"],
            drafts=not options["no_drafts"],
            exhaustive=options["exhaustive"],
            keep_best=options["keep_best"],
            force=options["force"],
            prompt=options["prefix"],
            max_input_tokens=options["max_input_tokens"],
            max_new_tokens=options["max_new_tokens"],
            limit=options["limit"],
            columns=Columns(input=options["input_column"], target=options["target_column"]),
            revision=options["revision"],
            command=_command_line(options),
            on_event=show,
        )
    print_table(outcome_table(outcome))
    for note in notes(outcome):
        click.echo(note)
    if not outcome.meets_target:
        written = f"; it was written to {output}" if outcome.published else ""
        raise TargetMissedError(f"no artifact meets the target: {outcome.verdict}{written}")
    click.echo(f"\nNext: edge info {output}, edge run {output} 'your text'")


def _command_line(options: dict[str, Any]) -> str:
    """The command for the manifest. Paths are cut to their names, which reveal no folders."""
    from edge.runtime.durations import format_duration

    context = click.get_current_context()
    words = ["edge compile", Path(options["model"]).name]
    for parameter in context.command.params:
        value = options.get(parameter.name or "")
        if not isinstance(parameter, click.Option) or value in (None, (), False):
            continue
        name = parameter.opts[-1]
        if value is True:
            words.append(name)
        elif isinstance(parameter.type, IntegerList):
            words += [name, ",".join(map(str, value))]
        elif isinstance(parameter.type, Duration):
            words += [name, format_duration(value)]
        else:
            for one in value if isinstance(value, tuple) else (value,):
                if parameter.multiple or one != parameter.default:
                    words += [name, one.name if isinstance(one, Path) else str(one)]
    return " ".join(words)
