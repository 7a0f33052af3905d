"""Options that several stages share, as click decorators: parameters of params.yaml, --config, --device, -o."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, Callable, Sequence, TypeVar

import click

from lib.artifact.files import check_writable
from lib.config.params import choose_params, load_params, resolve_config
from lib.config.schema import SECTIONS, Config
from lib.config.text import TOKENIZER_KINDS
from lib.data.text import check_word
from lib.errors import MakegptError, UsageError

Function = TypeVar("Function", bound=Callable[..., Any])

_CHANGES_KEY = f"{__name__}.changes"  # in a context's meta: the changes that @parameter options ask for


class ParameterOption(click.Option):
    """An option that sets a parameter of params.yaml; its help shows the default of that file."""

    def __init__(self, *words: Any, section: str, key: str, **settings: Any) -> None:
        super().__init__(*words, expose_value=False, callback=_note_change, **settings)
        self.section, self.key = section, key

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        names, help = super().get_help_record(ctx) or ("", "")
        try:
            default = load_params()["defaults"][self.section][self.key]
        except (MakegptError, KeyError, TypeError):
            default = "in params.yaml"
        return names, f"{help}  [default: {default}]"


def note_kind(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Make a kind of tokenizer that an option names part of the `config` of `config_options`; a folder is not."""
    if value in TOKENIZER_KINDS:
        ctx.meta.setdefault(_CHANGES_KEY, []).append((option.opts[0], "tokenize.tokenizer", value))
    return value


def _note_change(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
    assert isinstance(option, ParameterOption)
    if value is not None:
        ctx.meta.setdefault(_CHANGES_KEY, []).append((option.opts[0], f"{option.section}.{option.key}", value))


def parameter(name: str) -> Callable[[Function], Function]:
    """Add an option for a parameter of params.yaml: `@parameter("train.max_steps")` adds --max-steps.

    Its value becomes part of the `config` of `config_options`.
    """
    section, _, key = name.partition(".")
    spec = next(field for field in dataclasses.fields(SECTIONS[section]) if field.name == key)
    help = spec.metadata["help"]
    type_name = getattr(spec.type, "__name__", str(spec.type).split(" ")[0])
    return click.option(
        f"--{key.replace('_', '-')}",
        f"{section}_{key}".replace("-", "_"),
        cls=ParameterOption,
        section=section,
        key=key,
        metavar="|".join(spec.metadata["one_of"]) or {"int": "N", "float": "X", "bool": "true|false"}.get(type_name, "TEXT"),
        help=f"{help[0].upper()}{help[1:]}.",
    )


def params_option(function: Function) -> Function:
    """Add --params FILE, the params.yaml to read."""
    return click.option(
        "--params",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_choose_params,
        metavar="FILE",
        help="Parameter file  [default: $MAKEGPT_PARAMS, or params.yaml here or of the project]",
    )(function)


def _choose_params(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    choose_params(path)
    ctx.call_on_close(lambda: choose_params(None))


def config_options(*, required: bool = False) -> Callable[[Function], Callable[..., Any]]:
    """Add --config, --set and --params; the function gets the Config they resolve to, as `config`."""

    def decorate(function: Function) -> Callable[..., Any]:
        @functools.wraps(function)
        def with_config(config_name: str | None, changes: tuple[str, ...], **arguments: Any) -> Any:
            return function(config=_resolve_options(config_name, changes), **arguments)

        default = "." if required else "  [default: the defaults of params.yaml]"
        config = click.option(
            "--config", "config_name", required=required, metavar="NAME", help=f"Named config of params.yaml{default}"
        )
        changes = click.option(
            "--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Set a parameter; may be repeated."
        )
        return config(changes(params_option(with_config)))

    return decorate


def _resolve_options(name: str | None, set_options: Sequence[str]) -> Config:
    """The Config that --config, --set and the @parameter options ask for."""
    changes = [check_word(change, f"--set {change.partition('=')[0]!r}") for change in set_options]
    for option, key, value in click.get_current_context().meta.get(_CHANGES_KEY, ()):
        check_word(str(value), option)
        check_one_value(option, value, key)
        changes.append(f"{key}={value}")
    return resolve_config(load_params(), name, changes)


def check_one_value(word: str, value: str, key: str) -> None:
    """UsageError if a --set of this command gives the parameter `key` another value than the option or argument `word`."""
    for change in click.get_current_context().params["changes"]:
        name, _, other = change.partition("=")
        if name.strip() == key and other.strip() != value.strip():
            raise UsageError(f"{word} {value} and --set {change} set the same parameter to different values; keep one")


def config_named(name: str) -> Config:
    """What `--config name` with the --set of this command resolves to."""
    return resolve_config(load_params(), name, click.get_current_context().params["changes"])


device_option = click.option(
    "--device",
    "device_name",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Device to compute on; auto prefers cuda, then mps, then cpu.",
)

#: The type of a text file, or a file of prompts, that may come from stdin (-) too.
text_path = click.Path(path_type=str, allow_dash=True)


def writable(_: click.Context, __: click.Parameter, path: Path | None) -> Path | None:
    """Check the FILE of -o before any work is done; OSError if it cannot be written."""
    if path is not None:
        check_writable(path)
    return path


output_file_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE|-",
    callback=writable,
    help="Output file (written atomically); a pipe gets text as it is made  [default: stdout]",
)
