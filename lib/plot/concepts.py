"""Figures of concepts: each shows what the code itself computes; nothing is drawn by hand.

T time, S tokens of a source, H heads
"""

from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lib.config.model import ModelConfig
from lib.config.schema import PlotConfig, TrainConfig
from lib.errors import MakegptError
from lib.generate.request import encode_prompt
from lib.generate.translations import translations
from lib.model.encoder_decoder import EncoderDecoder
from lib.model.feed_forward import gelu, silu
from lib.model.maps import attention_maps, attentions, cross_attention_maps
from lib.model.positions import Sinusoidal
from lib.model.shortcut import DeepNetwork, mean_gradients
from lib.model.sparse_attention import attention_mask, sparse_pattern
from lib.plot.style import LINE_STYLES, blank_figure, escape_mathtext, light_grid
from lib.run.folder import TrainedModel, load_run
from lib.train.schedule import learning_rate


def mask_figure(config: ModelConfig, plot: PlotConfig) -> Figure:
    """Which position may attend to which: the model's mask, with its pattern if it has one."""
    T, pattern = config.context_length, sparse_pattern(config)
    figure = blank_figure(plot)
    axes = figure.add_subplot()
    axes.imshow(attention_mask(T, pattern).numpy(), cmap="Greys", vmin=-0.3, vmax=1.3)
    if T <= 32:
        axes.set_xticks([t - 0.5 for t in range(1, T)], minor=True)
        axes.set_yticks([t - 0.5 for t in range(1, T)], minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
    axes.set_title("dark: hidden" + (f", {pattern}" if pattern else ""))
    axes.set_xlabel("key position")
    axes.set_ylabel("query position")
    return figure


class Attention(NamedTuple):
    """The attention weights of each layer, (H, T, T) or (H, T, S), and the tokens that look and that are looked at."""

    maps: list[Tensor]
    looking: list[str]
    looked_at: list[str]


def read_attention(folder: Path, prompt: str) -> Attention:
    """The attention of the run in `folder` as it reads `prompt`; of an encoder-decoder, its cross-attention as it writes."""
    trained = load_run(folder, torch.device("cpu"), encoder_decoder=True)
    if isinstance(trained.model, EncoderDecoder):
        return _read_cross_attention(trained, trained.model, prompt)
    if not attentions(trained.model):
        raise MakegptError(f"{folder} is a {trained.config.kind}, which has no attention to draw")
    ids = encode_prompt(trained.tokenizer, prompt).ids
    tokens = [trained.tokenizer.decode([id]) for id in ids]
    return Attention(attention_maps(trained.model, torch.tensor([ids])), tokens, tokens)


def _read_cross_attention(trained: TrainedModel, model: EncoderDecoder, prompt: str) -> Attention:
    """As `model` writes the target of the source `prompt`: a row shows what it looks at as it chooses the row's token."""
    tokenizer, source = trained.tokenizer, encode_prompt(trained.tokenizer, prompt, is_source=True)
    sizes = torch.tensor([len(source.source)])
    (target,) = translations(model, torch.tensor([source.source]), sizes, source.ids[0], model.context_length - 1)
    maps = cross_attention_maps(model, source.source, [*source.ids, *target])
    return Attention(
        maps, [*(tokenizer.decode([id]) for id in target), "end"], [tokenizer.decode([id]) for id in source.source]
    )


def attention_figure(attention: Attention, plot: PlotConfig) -> Figure:
    """The attention weights of each layer, one row of panels per layer, labeled with the tokens."""
    maps, looking, looked_at = attention
    figure = blank_figure(plot)
    grid = figure.subplots(len(maps), max(len(layer) for layer in maps), squeeze=False, sharex=True, sharey=True)
    rows, columns = (
        [escape_mathtext(token) for token in tokens] if len(tokens) <= 40 else [] for tokens in (looking, looked_at)
    )
    is_upright = max(map(len, looked_at)) > 1
    for number, (row, layer) in enumerate(zip(grid, maps, strict=True)):
        for head, (axes, weights) in enumerate(zip(row, layer, strict=True)):
            image = axes.imshow(weights.numpy(), cmap="cividis", vmin=0, vmax=1)
            axes.set_title(f"layer {number}, head {head}", fontsize=8)
            axes.set_xticks(range(len(columns)), columns, fontsize=6, rotation=90 if is_upright else 0)
            axes.set_yticks(range(len(rows)), rows, fontsize=6)
    is_cross = looking is not looked_at
    figure.supxlabel("token of the source" if is_cross else "token looked at", fontsize=9)
    figure.supylabel("token to be written" if is_cross else "token that looks", fontsize=9)
    figure.colorbar(image, ax=grid, shrink=0.6, label="weight")
    return figure


def positions_figure(config: ModelConfig, plot: PlotConfig) -> Figure:
    """The table of sinusoidal positions: sines and cosines of ever lower frequency."""
    figure = blank_figure(plot)
    axes = figure.add_subplot()
    table = Sinusoidal(config.context_length, config.emb_dim).table
    image = axes.imshow(table.numpy(), cmap="cividis", aspect="auto", vmin=-1, vmax=1)
    axes.set_xlabel("dimension of the vector")
    axes.set_ylabel("position")
    figure.colorbar(image, ax=axes)
    return figure


def activations_figure(plot: PlotConfig) -> Figure:
    """ReLU, GELU and SiLU between -4 and 4."""
    figure = blank_figure(plot)
    axes = figure.add_subplot()
    x = torch.linspace(-4, 4, 321, dtype=torch.float64)  # in float32 the last bits would be visible in an SVG's digits
    curves = (("ReLU", torch.relu), ("GELU", gelu), ("SiLU", silu))
    styles = ("--", "-", "-.")  # markers would hide the curves
    for (name, function), (color, _), style in zip(curves, LINE_STYLES, styles, strict=False):
        axes.plot(x.numpy(), function(x).numpy(), color=color, linestyle=style, label=name)
    axes.set_xlabel("x")
    light_grid(axes)
    axes.legend()
    return figure


def gradients_figure(plot: PlotConfig) -> Figure:
    """The mean gradient of each layer of a deep network, with and without shortcuts."""
    sizes = [8] * 12 + [1]
    x = torch.randn(64, sizes[0], generator=torch.Generator().manual_seed(2)).double()
    figure = blank_figure(plot)
    axes = figure.add_subplot()
    for shortcuts, (color, marker) in zip((True, False), LINE_STYLES, strict=False):
        network = DeepNetwork(sizes, shortcuts=shortcuts)
        network.initialize(torch.Generator().manual_seed(1))
        # processors agree on the first three digits
        gradients = [float(f"{size:.3g}") for size in mean_gradients(network.double(), x)]
        label = "with shortcuts" if shortcuts else "without"
        axes.semilogy(range(1, len(gradients) + 1), gradients, color=color, marker=marker, label=label)
    axes.set_xlabel("layer, from the input to the output")
    axes.set_ylabel("mean absolute gradient")
    light_grid(axes)
    axes.legend()
    return figure


def schedule_figure(config: TrainConfig, plot: PlotConfig) -> Figure:
    """The learning rate by step."""
    figure = blank_figure(plot)
    axes = figure.add_subplot()
    steps = range(config.max_steps)
    axes.plot(
        steps, [learning_rate(step, config) for step in steps], color=LINE_STYLES[0][0], marker="." if len(steps) < 50 else ""
    )
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    light_grid(axes)
    return figure
