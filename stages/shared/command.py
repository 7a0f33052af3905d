"""What every command has in common: one-line errors, exit codes, signals, pipes, --quiet and --debug.

Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted (Ctrl-C), 143 terminated.
"""

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn, Sequence

import click

from lib.artifact.manifest import check_output_file
from lib.errors import MakegptError, UsageError, one_line
from stages.shared.streams import (
    forward_project_warnings,
    open_closed_streams,
    printable,
    replace_unencodable_characters,
    say,
    set_quiet,
    silence_other_packages,
)

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Terminated(BaseException):
    """SIGTERM was received."""


class Command(click.Command):
    """A click command with the errors and exit codes of this project."""

    def __init__(self, name: str, **settings: Any) -> None:
        settings.setdefault("context_settings", {"help_option_names": ["-h", "--help"], "max_content_width": 100})
        super().__init__(name, **settings)

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        """Run the command and exit with its code."""
        words = list(sys.argv[1:] if args is None else args)
        name = prog_name or self.name or ""
        debug = "--debug" in words
        code = 0
        open_closed_streams()
        replace_unencodable_characters()
        if not debug:
            silence_other_packages()
        # OpenMP threads spin briefly between two operations, then sleep. A step of a small model takes 3/4 of the time it
        # takes with threads that sleep at once. On busy cores a step of gpt_balanced takes 4/5 of the time it takes with
        # threads that spin for long (bench/threads.py). Read when torch is imported.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
        try:
            signal.signal(signal.SIGTERM, _terminate)
            if any("\0" in word for word in words):
                raise UsageError("an argument contains a NUL character")
            with forward_project_warnings(say), self.make_context(name, words, **extra) as context:
                self.invoke(context)
            sys.stdout.flush()
        except click.exceptions.Exit as exit:  # after --help
            code = exit.exit_code
        except (MakegptError, click.ClickException) as error:
            if debug:
                raise
            code = error.exit_code
            _print_error(name, error.format_message() if isinstance(error, click.ClickException) else str(error))
        except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        except OSError as error:
            if debug:
                raise
            code = 1
            advice = "; free some space and run the same command again" if error.errno in _DISK_FULL else ""
            _print_error(name, f"{error.filename or 'writing'}: {error.strerror or error}{advice}")
        except Exception as error:
            if debug:
                raise
            code = 1
            _print_error(name, _describe_bug(error))
        except (KeyboardInterrupt, click.Abort):
            code = 130
            _print_error(name, "interrupted")
        except Terminated:
            code = 143
            _print_error(name, "terminated")
        sys.exit(code)


class Stage(Command):
    """A stage of the pipeline: `@click.command(NAME, cls=Stage)` adds --quiet and --debug to its options."""

    def __init__(self, name: str, **settings: Any) -> None:
        settings["params"] = [*settings.get("params", ()), _quiet_option(), _debug_option()]
        super().__init__(name, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the stage, unless its output would overwrite one of its inputs."""
        output = ctx.params.get("output")
        if output is not None and str(output) != "-":
            check_output_file(output, self._input_paths(ctx))
        return super().invoke(ctx)

    def _input_paths(self, ctx: click.Context) -> list[Path]:
        """All paths given on the command line except the output and stdin."""
        paths: list[Path] = []
        for parameter in self.params:
            value = ctx.params.get(str(parameter.name))
            if isinstance(parameter.type, click.Path) and parameter.name != "output" and value is not None:
                values = value if isinstance(value, tuple) else (value,)
                paths += [Path(path) for path in values if str(path) != "-"]
        return paths


def _quiet_option() -> click.Option:
    def callback(_: click.Context, __: click.Parameter, quiet: bool) -> None:
        if quiet:
            set_quiet()

    words = ["-q", "--quiet"]
    return click.Option(
        words, is_flag=True, is_eager=True, expose_value=False, callback=callback, help="Suppress log messages."
    )


def _debug_option() -> click.Option:
    return click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error.")


def _print_error(name: str, message: str) -> None:
    process = f" (process {os.environ.get('RANK')})" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
    click.echo(printable(f"{name}{process}: error: {one_line(message)}"), err=True)


def _describe_bug(error: Exception) -> str:
    """The message for an unexpected error; torch reports a lack of memory as a RuntimeError."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error):
        return "out of memory; reduce the batch size, or estimate what a training needs with `train … --plan`"
    return f"this is a bug in makegpt: {type(error).__name__}: {error}; run it again with --debug for the traceback"


def _terminate(*_: Any) -> None:
    raise Terminated
