"""`edge train`: a T5-family model fine-tuned on rows of text → text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.cli.base import Command, command_name
from edge.cli.display.train import TrainingDisplay, show_result
from edge.cli.option_effects import refuse_without_effect
from edge.cli.param_types import INPUT
from edge.cli.train_options import layer_options, train_options

if TYPE_CHECKING:
    from edge.train.config import TrainConfig
    from edge.train.distributed import Processes
    from edge.train.preflight import Checks


class ConfiguredCommand(Command):
    """A command whose options, presets and files make a `TrainConfig`."""

    checks_effects = False  # `config_from` does, when the configuration is complete


@click.command(cls=ConfiguredCommand)
@click.argument("data", required=False, type=INPUT)
@layer_options
@train_options
@click.option(
    "--draft", is_flag=True, help="Then fit a draft head to the model, as edge draft fit does."
)
@click.option("--check/--no-check", default=True, help="Run edge check first.")
def command(check: bool, draft: bool, **options: Any) -> None:
    """Train a T5-family model on DATA, a file of rows or a folder with train and dev files.

    Rows may be JSON lines, a JSON array, CSV, TSV, Parquet, a saved data set or hub:OWNER/NAME.

    Presets override defaults, --config files override presets, and options override both. A table
    before training shows the chosen values.

    Several processes split every batch under torchrun or accelerate launch, as in torchrun
    --nproc-per-node 2 -m edge.cli train ...
    """
    from edge.train.distributed import MainProcessError, process_group

    try:
        with process_group() as processes:
            trained = _train(processes, check, draft, options)
    except MainProcessError as error:
        raise click.exceptions.Exit(error.exit_code) from error
    if draft and trained is not None:
        _add_draft_head(*trained)  # the other processes end, as one suffices


def _train(
    processes: Processes, check: bool, draft: bool, options: dict[str, Any]
) -> tuple[TrainConfig, Path] | None:
    """The configuration and the model folder; None in all processes but the main one."""
    from edge.cli.display.console import quiet_libraries

    run = config_from(**options)  # before the slow imports, so that wrong options fail at once
    quiet_libraries()
    from edge.train import train
    from edge.train.preflight import require_ready

    if check:
        processes.on_main_process(lambda: require_ready(run, further=draft_checks(draft)))
    if not processes.is_main:
        train(run, processes=processes)
        return None
    with TrainingDisplay() as display:
        result = train(run, on_event=display.on_event, processes=processes)
    show_result(result, next_step=not draft)
    return run, result.folder


def draft_checks(draft: bool) -> Checks:
    """What `--draft` adds to the checks before the training."""
    if not draft:
        return ()
    from edge.export.draft.training import enough_rows

    return (("draft", enough_rows),)


def _add_draft_head(run: TrainConfig, folder: Path) -> None:
    """Fit a draft head to a trained model.

    Raises:
        EdgeError: It can't be fitted; the model stays.
    """
    from edge.cli.display.draft import fit_draft
    from edge.export.draft.training import training_inputs
    from edge.runtime.errors import EdgeError

    try:
        fit_draft(folder, training_inputs(run), threads=run.threads)
    except EdgeError as error:
        raise EdgeError(
            f"{folder} is complete, but has no draft head: {error} (edge draft fit {folder} --data"
            f" {run.data} tries again)"
        ) from error


def config_from(
    preset: tuple[str, ...],
    config: tuple[Path, ...],
    *,
    defaults: Mapping[str, object] | None = None,
    **options: Any,
) -> TrainConfig:
    """The configuration from `defaults`, presets, files and options; later ones override."""
    from edge.train.presets import build_config

    given = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if value is not None
    }
    built = build_config(given, names=preset, files=config, defaults=defaults or {})
    context = click.get_current_context()
    refuse_without_effect(
        command_name(context), given, vars(built.resolved()), context.command.params
    )
    return built
