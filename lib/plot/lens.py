"""The logit lens as a figure: what each layer of a model would predict at each token of a text."""

from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure

from lib.config.schema import PlotConfig
from lib.errors import MakegptError
from lib.evaluate.analysis import LayerView, analyze
from lib.generate.request import encode_prompt
from lib.plot.drawing import BLUE, SIZE, canvas, cell, tint, write
from lib.plot.style import GRAY
from lib.run.folder import load_run

_MOST_TOKENS = 64
_WIDTH, _LABELS, _HEIGHT = 24.0, 3.2, 0.55  # of the figure, of the names of the layers, of a row, in cells
_POINTS = 0.72 * SIZE  # that a character takes


class Lens(NamedTuple):
    """The tokens of a text, and after each what every layer predicts, lowest first."""

    tokens: list[str]
    places: list[tuple[LayerView, ...]]


def read_lens(folder: Path, prompt: str) -> Lens:
    """The lens of the run in `folder` as it reads `prompt`."""
    cpu = torch.device("cpu")
    trained = load_run(folder, cpu)
    ids = encode_prompt(trained.tokenizer, prompt, name="--prompt").ids
    if len(ids) > _MOST_TOKENS:
        raise MakegptError(f"--prompt has {len(ids)} tokens, and a lens of more than {_MOST_TOKENS} is too wide to draw")
    analysis = analyze(trained.model, trained.tokenizer, ids, cpu, lens=True)
    predictions = [*(token.prediction for token in analysis.tokens[1:]), analysis.next]
    places = [prediction.lens for prediction in predictions if prediction is not None and prediction.lens is not None]
    return Lens([token.text for token in analysis.tokens], places)


def lens_figure(lens: Lens, plot: PlotConfig) -> Figure:
    """A column for each token, a row for each layer, the last on top: its most likely next token, shaded by probability.

    Bold: what the last layer, the model itself, predicts too.
    """
    layers, column = len(lens.places[0]), (_WIDTH - _LABELS - 0.3) / len(lens.tokens)
    figure, axes = canvas(plot, _WIDTH, 1 + layers * _HEIGHT + 1.5)
    room = max(1, int(column * 72 * plot.width / _WIDTH / _POINTS))
    for x, (token, views) in enumerate(zip(lens.tokens, lens.places, strict=True)):
        left = _LABELS + x * column
        for view in views:
            top = 1 + (layers - 1 - view.layer) * _HEIGHT
            best = view.top[0]
            is_last = best.id == views[-1].top[0].id
            face = tint(BLUE, best.probability)
            cell(axes, left, top, visible(best.text, room), face=face, width=column, height=_HEIGHT, bold=is_last)
        write(axes, left + column / 2, 1 + layers * _HEIGHT + 0.4, visible(token, room), color=GRAY)
    for layer in range(layers):
        name = {0: "embeddings", layers - 1: "the model"}.get(layer, f"block {layer}")
        write(axes, _LABELS - 0.2, 1 + (layers - 0.5 - layer) * _HEIGHT, name, ha="right")
    write(axes, _LABELS - 0.2, 1 + layers * _HEIGHT + 0.4, "token read", ha="right", color=GRAY)
    write(axes, _WIDTH / 2, 0.5, "the most likely next token after each block; the darker, the more probable", color=GRAY)
    write(axes, _WIDTH / 2, 1 + layers * _HEIGHT + 1.1, "bold: the model's own prediction", color=GRAY)
    return figure


def visible(token: str, room: int) -> str:
    """A token as a cell of `room` characters can show it, with its spaces."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in token).replace(" ", "␣")
    if len(text) <= room:
        return text
    return f"{text[: room - 1]}…" if room > 1 else text[:1]
