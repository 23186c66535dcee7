"""Base classes of the commands, and the state of one call of the command line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import click


@dataclass
class Invocation:
    """One call of `edge`: its arguments, whether errors show a traceback, and tables are wide."""

    arguments: list[str]
    verbose: bool = False
    wide: bool = False


def _set_verbose(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    invocation = ctx.find_object(Invocation)
    if value and invocation is not None:
        invocation.verbose = True


def _verbose_options() -> list[click.Parameter]:
    """`-v/--verbose` and its hidden alias `--debug`, which every command has."""
    return [
        click.Option(
            names,
            is_flag=True,
            is_eager=True,
            expose_value=False,
            hidden=hidden,
            callback=_set_verbose,
            help="Show the traceback of an error.",
        )
        for names, hidden in ((["-v", "--verbose"], False), (["--debug"], True))
    ]


class GroupedOption(click.Option):
    """An option listed in a separate section of `--help`.

    Args:
        section: The heading of the section.
    """

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class _StrictParsing(click.Command):
    """Adds `--verbose`, refuses repeated options, and groups the help by section."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _verbose_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does.

        Raises:
            click.UsageError: An option that takes one value is given more than once.
        """
        if args and not ctx.resilient_parsing:
            _, _, given = self.make_parser(ctx).parse_args(args=list(args))
            for param, count in Counter(given).items():
                if isinstance(param, click.Option) and count > 1 and not _may_repeat(param):
                    raise click.UsageError(
                        f"{'/'.join([*param.opts, *param.secondary_opts])} is given {count} times;"
                        " give it once",
                        ctx,
                    )
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options: first those without a section, then section by section."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _may_repeat(option: click.Option) -> bool:
    """Whether a repetition adds to a list or a count, or ends the call (`--help --help`)."""
    return option.multiple or option.count or option.is_eager


class Command(_StrictParsing):
    """A command of `edge`."""

    checks_effects = True  # of its options, by `edge.cli.option_effects`

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            UsageError: An option has no effect, or a destination would destroy something else.
                Messages of the library get the names of the options.
        """
        from edge.cli.option_names import with_option_names
        from edge.cli.output_paths import check_outputs
        from edge.runtime.errors import UnsupportedError, UsageError

        if self.checks_effects:
            from edge.cli.option_effects import refuse_without_effect

            refuse_without_effect(command_name(ctx), given_params(ctx), ctx.params, self.params)
        check_outputs(self.params, ctx.params)
        try:
            return super().invoke(ctx)
        except (UsageError, UnsupportedError) as error:
            error.args = (with_option_names(str(error), self.params), *error.args[1:])
            raise


def command_name(ctx: click.Context) -> str:
    """The words of the command without the program's name, such as "data augment"."""
    return ctx.command_path.partition(" ")[2]


def given_params(ctx: click.Context) -> set[str]:
    """Names of the parameters that are on the command line."""
    return {
        name
        for name in ctx.params
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }


class Group(_StrictParsing, click.Group):
    """A command of `edge` with subcommands. Without one, it prints its help and exits with 2."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as a command does."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the subcommands."""
        _StrictParsing.format_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)
