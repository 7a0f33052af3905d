"""--weights: which weights of a run to load, and in which format."""

from typing import NamedTuple

import click


class Weights(NamedTuple):
    """Which weights of a run to load, and in which format."""

    saved: str = "published"
    format: str = "float32"


_CHOICES = {"saved": ("published", "last"), "format": ("float32", "bfloat16", "int8", "int4")}


def _parse_weights(_: click.Context, __: click.Parameter, value: str) -> Weights:
    """`last`, `int8` or `last,int8` as Weights."""
    chosen: dict[str, str] = {}
    for word in value.split(","):
        field = next((field for field, choices in _CHOICES.items() if word in choices), None)
        if field is None or field in chosen:
            checkpoint, number_format = (" or ".join(choices) for choices in _CHOICES.values())
            raise click.BadParameter(f"{value!r}; use {checkpoint}, {number_format}, or one of each with a comma between")
        chosen[field] = word
    return Weights(**chosen)


weights_option = click.option(
    "--weights",
    callback=_parse_weights,
    default="published,float32",
    show_default=True,
    metavar="WHICH,FORMAT",
    help="published (finished runs) or last (latest checkpoint); float32, bfloat16, int8 or int4.",
)
