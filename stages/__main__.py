"""`makegpt STAGE …`, or `python -m stages STAGE …`: every stage under one command."""

import sys
from importlib import import_module
from typing import Any, NoReturn, Sequence

import click

from lib import __version__
from lib.errors import UsageError, nearest
from stages import STAGES, command_name
from stages.shared.command import Command


class Pipeline(Command, click.Group):
    """The group of all stages; a stage is imported when it is run."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        """Run the stage that the first word names, as its own command would."""
        words = list(sys.argv[1:] if args is None else args)
        name = words[0].replace("_", "-") if words else ""
        if stage := self.get_command(None, name):
            stage.main(words[1:], prog_name=f"{self.name} {name}", **extra)
        super().main(words or ["--help"], prog_name=prog_name or self.name, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [command_name(stage) for stage in STAGES]

    def get_command(self, ctx: click.Context | None, cmd_name: str) -> click.Command | None:
        stage = cmd_name.replace("-", "_")
        command: click.Command | None = import_module(f"stages.{stage}").main if stage in STAGES else None
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the stages without importing them."""
        with formatter.section("Stages"):
            formatter.write_dl([(command_name(stage), about) for stage, about in STAGES.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> NoReturn:
        raise UsageError(f"unknown stage {args[0]!r}; {nearest(args[0], self.list_commands(ctx))}")


main = click.version_option(__version__)(
    Pipeline(
        "makegpt",
        help="Train a GPT from raw text, one stage at a time. `makegpt STAGE --help` describes a stage.",
        subcommand_metavar="STAGE ...",
    )
)

if __name__ == "__main__":
    main()
