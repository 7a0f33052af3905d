"""--weights: which weights of a run to load, and in which format."""

from typing import Any, ClassVar, NamedTuple

import click


class Weights(NamedTuple):
    """Which weights of a run to load, and in which format."""

    saved: str = "best"
    format: str = "float32"


class _WeightsType(click.ParamType[Weights]):
    name = "weights"
    _words: ClassVar[dict[str, tuple[str, ...]]] = {"saved": ("best", "last"), "format": ("float32", "bfloat16", "int8")}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Weights:
        if isinstance(value, Weights):
            return value
        chosen: dict[str, str] = {}
        for word in str(value).split(","):
            kind = next((kind for kind, words in self._words.items() if word in words), None)
            if kind is None or kind in chosen:
                choices = " and ".join(" or ".join(words) for words in self._words.values())
                self.fail(f"invalid weights {value!r}; use {choices}, separated by a comma", param, ctx)
            chosen[kind] = word
        return Weights(**chosen)


weights_option = click.option(
    "--weights",
    type=_WeightsType(),
    default="best,float32",
    show_default=True,
    metavar="WHICH,FORMAT",
    help="best (finished runs) or last (latest checkpoint); float32, bfloat16 or int8.",
)
