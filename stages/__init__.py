"""The stages of the pipeline, one command a file, and the manners they share.

stdout is data and stderr is talk; an error is one line; exit 0 done, 1 failed, 2 misused, 130 and 143
interrupted. A stage reads, makes one call into `lib` and writes. It never imports another stage.
"""

import dataclasses
import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any, Callable, NoReturn, Sequence, TypeVar

import click

from lib.artifact.files import check_writable
from lib.artifact.manifest import check_output_file
from lib.config.params import choose_params, load_params, resolve_config
from lib.config.schema import SECTIONS, Config
from lib.data.text import check_word
from lib.errors import MakegptError, UsageError, one_line
from stages.shared.streams import (
    open_what_is_closed,
    printable,
    saying_what_is_passed_over,
    silence_other_packages,
    write_any_character,
)

Function = TypeVar("Function", bound=Callable[..., Any])

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Terminated(BaseException):
    """SIGTERM has arrived."""


class Stage(click.Command):
    """A click command with this project's errors and exit codes."""

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        """Do the stage, as click would, and leave with its exit code."""
        words = list(sys.argv[1:] if args is None else args)
        code = 0
        open_what_is_closed()
        write_any_character()
        if "--debug" not in words:
            silence_other_packages()
        # OpenMP's threads spin a moment between two operations and then sleep: a small model's step takes three quarters of the
        # time it takes with threads that sleep at once, and where a core is busy elsewhere a step of gpt_balanced takes four
        # fifths of what it takes with threads that spin for long (bench/threads.py). Read when torch is imported.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
        try:
            signal.signal(signal.SIGTERM, _terminate)
            if any("\0" in word for word in words):
                raise UsageError("a NUL character cannot stand in a word of the command line")
            with saying_what_is_passed_over(say), self.make_context(self.name, words, **extra) as context:
                self.invoke(context)
            sys.stdout.flush()
        except click.exceptions.Exit as exit:  # --help has been given
            code = exit.exit_code
        except (MakegptError, click.ClickException) as error:
            if "--debug" in words:
                raise
            code = error.exit_code
            self._complain(error.format_message() if isinstance(error, click.ClickException) else str(error))
        except BrokenPipeError:  # the reader, `head` say, has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        except OSError as error:
            if "--debug" in words:
                raise
            code = 1
            advice = "; free some space and run the same command again" if error.errno in _NO_SPACE else ""
            self._complain(f"{error.filename or 'writing'}: {error.strerror or error}{advice}")
        except Exception as error:
            if "--debug" in words:
                raise
            code = 1
            self._complain(_defect(error))
        except (KeyboardInterrupt, click.Abort):
            code = 130
            self._complain("interrupted")
        except Terminated:
            code = 143
            self._complain("terminated")
        sys.exit(code)

    def _complain(self, message: str) -> None:
        line = one_line(message)
        process = f" (process {os.environ.get('RANK')})" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
        click.echo(printable(f"{self.name}{process}: error: {line}"), err=True)


def _defect(error: Exception) -> str:
    """What to say of an error that no module foresaw; torch reports a lack of memory as a RuntimeError."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error):
        return "there is not enough memory; `train … --plan` tells how much a training needs, smaller batches need less"
    return f"this is a defect of makegpt: {type(error).__name__}: {error}; run it again with --debug to see where"


def _terminate(*_: Any) -> None:
    raise Terminated


class ParameterOption(click.Option):
    """An option that sets a parameter of params.yaml; its help shows the default that stands there."""

    def __init__(self, *words: Any, section: str, key: str, **settings: Any) -> None:
        super().__init__(*words, **settings)
        self.section, self.key = section, key

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        names, about = super().get_help_record(ctx) or ("", "")
        try:
            default = load_params()["defaults"][self.section][self.key]
        except (MakegptError, KeyError, TypeError):
            default = "in params.yaml"
        return names, f"{about}  [default: {default}]"


def stage(name: str, *, config: str = "optional", **parameters: Sequence[str]) -> Callable[[Function], Stage]:
    """Make a function a stage called `name`; its other click decorators stand below this one.

    Unless `config` is "none" it gets `config`, the resolved Config, of --config ("required" where that must be
    given), --set, and one option for each of `parameters` (section, with _ for -, to keys).
    """

    def decorate(function: Function) -> Stage:
        options: list[click.Parameter] = list(reversed(getattr(function, "__click_params__", [])))
        for section, keys in parameters.items():
            options += [_parameter_option(section.replace("_", "-"), key) for key in keys]
        if config != "none":
            options += [
                click.Option(
                    ["--config", "config_name"],
                    required=config == "required",
                    metavar="NAME",
                    help="Named config of params.yaml" + ("." if config == "required" else "  [default: its defaults alone]"),
                ),
                click.Option(
                    ["--set", "changes"],
                    multiple=True,
                    metavar="SECTION.KEY=VALUE",
                    help="Change a parameter; may be repeated.",
                ),
            ]
        if config != "none" or name == "fetch":
            options.append(
                click.Option(
                    ["--params"],
                    type=click.Path(path_type=Path),
                    is_eager=True,
                    expose_value=False,
                    callback=_choose_params,
                    metavar="FILE",
                    help="Read this file  [default: $MAKEGPT_PARAMS, or params.yaml here or of the project]",
                )
            )
        options += [
            click.Option(["-q", "--quiet"], is_flag=True, help="No talk on stderr, errors only."),
            click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
        ]

        def callback(quiet: bool, debug: bool, **given: Any) -> Any:
            click.get_current_context().meta["quiet"] = quiet
            if config != "none":
                given["config"] = _resolve(options, given)
            _check_output(options, given)
            return function(**given)

        return Stage(
            name,
            callback=callback,
            params=options,
            help=function.__doc__,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        )

    return decorate


def _check_output(options: list[click.Parameter], given: dict[str, Any]) -> None:
    """Refuse an output that would be written over what the command reads."""
    output = given.get("output")
    if output is None or str(output) == "-":
        return
    named = [
        given.get(str(option.name)) for option in options if isinstance(option.type, click.Path) and option.name != "output"
    ]
    words = [word for value in named if value is not None for word in (value if isinstance(value, tuple) else (value,))]
    check_output_file(output, (Path(word) for word in words if str(word) != "-"))


def _choose_params(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    choose_params(path)
    context.call_on_close(lambda: choose_params(None))


def _resolve(options: list[click.Parameter], given: dict[str, Any]) -> Config:
    """The Config that --config, --set and the parameters' own options ask for; they are taken out of `given`."""
    name = given.pop("config_name")
    changes = [check_word(change, f"--set {change.partition('=')[0]!r}") for change in given.pop("changes")]
    for option in options:
        if isinstance(option, ParameterOption):
            value = given.pop(str(option.name))
            if value is not None:
                check_word(str(value), option.opts[0])
                check_one_value(option.opts[0], value, f"{option.section}.{option.key}", changes)
                changes.append(f"{option.section}.{option.key}={value}")
    return resolve_config(load_params(), name, changes)


def check_one_value(word: str, value: str, key: str, changes: Sequence[str] | None = None) -> None:
    """UsageError where a --set of `changes`, by default this command's, gives the parameter `key` another value than `word`."""
    for change in click.get_current_context().params["changes"] if changes is None else changes:
        name, _, other = (part.strip() for part in change.partition("="))
        if name == key and other != value.strip():
            raise UsageError(f"{word} {value} and --set {change} give two values to one parameter; keep one")


def config_named(name: str) -> Config:
    """What `--config name` would come to beside the --set of this command."""
    return resolve_config(load_params(), name, click.get_current_context().params["changes"])


def _parameter_option(section: str, key: str) -> ParameterOption:
    spec = next(f for f in dataclasses.fields(SECTIONS[section]) if f.name == key)
    about = spec.metadata["help"]
    metavar = "|".join(spec.metadata["one_of"]) or {"int": "N", "float": "X", "bool": "true|false"}.get(
        getattr(spec.type, "__name__", str(spec.type).split(" ")[0]), "TEXT"
    )
    return ParameterOption(
        [f"--{key.replace('_', '-')}", f"{section}_{key}".replace("-", "_")],
        section=section,
        key=key,
        metavar=metavar,
        help=about[0].upper() + about[1:] + ".",
    )


def say(line: str) -> None:
    """Talk on stderr, unless --quiet was given."""
    if not click.get_current_context().meta.get("quiet"):
        click.echo(printable(line), err=True)


def be_quiet() -> None:
    """Say nothing from here on, as with --quiet."""
    click.get_current_context().meta["quiet"] = True


device_option = click.option(
    "--device",
    "device_name",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto takes cuda, then mps, then cpu.",
)


#: A text, or a file of prompts, that may come on stdin too.
text_path = click.Path(path_type=str, allow_dash=True)


def writable(_: click.Context, __: click.Parameter, path: Path | None) -> Path | None:
    """The FILE of an option -o; OSError, before any work is done, where it could not be written."""
    if path is not None:
        check_writable(path)
    return path


output_file_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE|-",
    callback=writable,
    help="Write there, whole; into a pipe as it comes  [default: stdout]",
)
