"""Which weights of a run a command takes, and in which numbers."""

from typing import Any, ClassVar, NamedTuple

import click


class Weights(NamedTuple):
    """Which weights of a run to take, and in which numbers."""

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
                known = " and ".join(" or ".join(words) for words in self._words.values())
                self.fail(f"{value!r} is not right; {known}, with a comma between, would do", param, ctx)
            chosen[kind] = word
        return Weights(**chosen)


weights_option = click.option(
    "--weights",
    type=_WeightsType(),
    default="best,float32",
    show_default=True,
    metavar="WORDS",
    help="The best of a finished run, or the last saved, of an unfinished one too; float32, or smaller: bfloat16, int8.",
)
