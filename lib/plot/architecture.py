"""The drawing of a model: its parts from the ids to the logits, with the shapes of activations and weights.

Everything is read from the model itself, built on the device "meta", where tensors have shapes and no data.

B batch, T time, C embedding, H heads, G key and value heads, D head size, V vocabulary
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn

from lib.config.model import ModelConfig
from lib.config.schema import Config, PlotConfig
from lib.errors import UsageError
from lib.model.attention import MultiHeadAttention
from lib.model.block import TransformerBlock
from lib.model.causal_attention import CausalAttention
from lib.model.language_model import LanguageModel
from lib.model.registry import build_model, count_parameters
from lib.plot.style import GRAY, LINE_STYLES, blank_figure, escape_mathtext
from lib.run.folder import finished_manifest, read_model_config
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE

#: Vocabulary sizes that do not depend on a text.
_VOCAB_SIZES = {"gpt2": GPT2_VOCAB_SIZE, "bytes": BytesTokenizer.vocab_size}


def run_model(folder: Path) -> tuple[str, ModelConfig]:
    """The name and the model of the finished run in `folder`."""
    finished_manifest(folder)
    return folder.resolve().name, read_model_config(folder)


def described_model(config: Config) -> ModelConfig:
    """The model that `config` describes; its vocabulary is the tokenizer's if the config does not give its size."""
    if config.model.vocab_size is not None:
        return config.model
    kind = config.tokenize.tokenizer
    if config.tokenize.vocab_size is not None:
        return replace(config.model, vocab_size=config.tokenize.vocab_size)
    if kind not in _VOCAB_SIZES:
        raise UsageError(
            f"the vocabulary of tokenizer {kind} comes from a text; give its size with --set model.vocab_size=65, or name a run"
        )
    return replace(config.model, vocab_size=_VOCAB_SIZES[kind])


@dataclass(frozen=True)
class Part:
    """A part as it is drawn: its weights, the activations inside it and its output, all as shapes."""

    name: str
    weights: str
    inside: str
    parameters: str
    output: str
    in_block: bool

    @property
    def shortcut(self) -> bool:
        return self.in_block and self.name in ("attention", "feed_forward")

    @property
    def color(self) -> str:
        return {"attention": LINE_STYLES[0][0], "feed_forward": LINE_STYLES[1][0]}.get(self.name, "#444444")


def model_parts(model: LanguageModel) -> list[Part]:
    """The parts of a model on the device "meta", in the order of the code; blocks are equal, so only the first is taken."""
    shapes = _output_shapes(model)
    parts: list[Part] = []
    seen: set[nn.Parameter] = set()
    for name, module in model.named_children():
        block = next((child for child in module.modules() if isinstance(child, TransformerBlock)), None)
        for inner, child in _block_parts(block) if block else [(name, module)]:
            weights = list(child.parameters())
            if not weights and not list(child.buffers()):
                continue  # dropout
            tied = bool(weights) and seen.issuperset(weights)
            added = len(shapes[child]) == 2  # a position table
            output = "(B, T, V): logits" if child is model.out_head else _letters(shapes[child], model)
            parts.append(
                Part(
                    name=inner,
                    weights="tok_emb once more" if tied else _weights(child) + (",  added to it" if added else ""),
                    inside=_inside(child, shapes, model),
                    parameters="0" if tied else f"{count_parameters(child):,}",
                    output=output,
                    in_block=block is not None,
                )
            )
            seen.update(weights)
    return parts


def _block_parts(block: TransformerBlock) -> list[tuple[str, nn.Module]]:
    """The parts of a block, lowest first."""
    norm1, attention, norm2, feed_forward, *rest = block.named_children()
    return [attention, norm1, feed_forward, norm2, *rest] if block.post_norm else [norm1, attention, norm2, feed_forward, *rest]


def _letters(shape: Sequence[int], model: LanguageModel) -> str:
    """A shape (1, T, size) in letters: (B, T, C), or (B, T, 3,072) if the size has no letter."""
    last = "C" if shape[-1] == model.config.emb_dim else f"{shape[-1]:,}"
    return f"(B, T, {last})"


@torch.no_grad()
def _output_shapes(model: LanguageModel) -> dict[nn.Module, tuple[int, ...]]:
    """The output shape of each module, for one text as long as the context."""
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        shapes[module] = tuple(output.shape)

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    model(torch.zeros(1, model.context_length, dtype=torch.long, device="meta"))
    for hook in hooks:
        hook.remove()
    return shapes


def _weights(module: nn.Module) -> str:
    """The weights in `module` with their shapes, a bias after its matrix: W_qkv 1152 × 384 + 1152."""
    shapes: dict[str, list[str]] = {}
    for name, weight in module.named_parameters():
        owner, _, kind = name.rpartition(".")
        label = owner or ("" if kind == "weight" else kind)
        shapes.setdefault(label, []).append(" × ".join(f"{size:,}" for size in weight.shape))
    return ",  ".join(f"{name} {' + '.join(sizes)}".strip() for name, sizes in shapes.items()) or "a formula, nothing learned"


def _inside(module: nn.Module, shapes: dict[nn.Module, tuple[int, ...]], model: LanguageModel) -> str:
    """The activations inside attention and feed-forward."""
    if isinstance(module, MultiHeadAttention):
        kv_heads = "G" if module.n_kv_heads < module.n_heads else "H"
        rotary = ", rotary" if module.rotate is not None else ""
        pattern = f", {module.pattern}" if module.pattern else ""
        return f"q (B, H, T, D),  k, v (B, {kv_heads}, T, D){rotary},  weights (B, H, T, T){pattern}"
    if isinstance(module, CausalAttention):
        return f"q, k, v {_letters(shapes[module.W_query], model)},  weights (B, T, T)"
    if (expand := getattr(module, "expand", None)) is not None:
        return f"wide {_letters(shapes[expand], model)}"
    return ""


def model_figure(models: Sequence[tuple[str, ModelConfig]], plot: PlotConfig) -> Figure:
    """Models side by side, each under its name, from the ids at the bottom to the logits at the top."""
    if names := [name or "the config" for name, config in models if config.has_encoder]:
        raise UsageError(
            f"{names[0]} is an encoder-decoder, two stacks of blocks, and plot model draws one; choose another model"
        )
    figure = blank_figure(plot, across=len(models))
    networks = [build_model(config, "meta") for _, config in models]
    parts_of = [model_parts(network) for network in networks]
    height = max(map(_height, parts_of))
    longest = max(len(text) for parts in parts_of for part in parts for text in (part.weights, part.inside))
    size = min(9.0, 0.6 * 72 * plot.height / height, 0.88 * 72 * plot.width / longest)  # points: what fits, with a small margin
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    for axes, (name, config), network, parts in zip(panels, models, networks, parts_of, strict=True):
        axes.set_axis_off()
        axes.set_xlim(-6, 6)
        axes.set_ylim(-1.8, height - 1.8)
        _draw(axes, parts, size, config.n_layers, post_norm=config.norm_position == "post")
        total = f"{count_parameters(network):,} parameters"
        axes.set_title(escape_mathtext(f"{name}: {total}" if name else total), fontsize=11)
        legend = axes.text(0, -1.5, _legend(config, parts), ha="center", va="center", fontsize=0.95 * size, color=GRAY)
        legend.set_in_layout(False)
    return figure


_ARROW = 1.35  # lines of text
_INNER = 1.05  # a second line in a box


def _height(parts: list[Part]) -> float:
    return 2.4 + sum(_box_height(part) + _ARROW for part in parts) + _ARROW


def _box_height(part: Part) -> float:
    return 1.3 + (_INNER if part.inside else 0)


def _draw(axes: Axes, parts: list[Part], size: float, n_layers: int, *, post_norm: bool) -> None:
    y = 0.0
    arrow = {"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0, "linewidth": 0.9}
    ends: list[tuple[float, float]] = []  # the lower and the upper end of each box
    axes.text(0, y - 0.25, "ids (B, T)", ha="center", va="center", fontsize=size)
    for part in parts:
        low = y + _ARROW
        high = low + _box_height(part)
        axes.annotate("", (0, low), (0, y + 0.2 if y == 0 else y), arrowprops=arrow, zorder=0)
        _box(axes, part, low, high, size)
        axes.text(0.2, high + _ARROW / 2, part.output, va="center", fontsize=0.95 * size, color=GRAY)
        if part.shortcut:  # around the norm and this part, or this part alone
            start, end = (low if post_norm else ends[-1][0]) - _ARROW / 2, high + _ARROW / 2
            axes.plot([0, -5.2, -5.2, 0], [start, start, end, end], color=part.color, linewidth=1.1, zorder=0)
            plus = {"boxstyle": "circle,pad=0.08", "facecolor": "white", "edgecolor": part.color}
            axes.text(0, end, "+", ha="center", va="center", fontsize=size, color=part.color, bbox=plus)
        ends.append((low, high))
        y = high
    axes.annotate("", (0, y + _ARROW), (0, y), arrowprops=arrow, zorder=0)
    if inner := [end for part, end in zip(parts, ends, strict=True) if part.in_block]:
        low, high = inner[0][0] - 0.8 * _ARROW, inner[-1][1] + 0.8 * _ARROW
        axes.add_patch(
            FancyBboxPatch(
                (-5.6, low), 11.2, high - low, boxstyle="round,pad=0", fill=False, linestyle="--", edgecolor="#888888"
            )
        )
        axes.text(5.4, high - 0.6, f"× {n_layers}", ha="right", va="center", fontsize=1.2 * size)


def _box(axes: Axes, part: Part, low: float, high: float, size: float) -> None:
    left, right = -4.8, 5.2
    style = "round,pad=0,rounding_size=0.12"
    axes.add_patch(
        FancyBboxPatch(
            (left, low), right - left, high - low, boxstyle=style, facecolor="white", edgecolor=part.color, linewidth=1.2
        )
    )
    middle = (low + high) / 2
    first = middle + (_INNER / 2 if part.inside else 0)
    axes.text(left + 0.2, middle, part.name, va="center", fontsize=size, fontweight="bold")
    axes.text(left + 2.3, first, part.weights, va="center", fontsize=0.95 * size)
    axes.text(right - 0.2, middle, part.parameters, va="center", ha="right", fontsize=size)
    if part.inside:
        axes.text(left + 2.3, first - _INNER, part.inside, va="center", fontsize=0.95 * size, color=GRAY)


def _legend(config: ModelConfig, parts: list[Part]) -> str:
    """The meaning of the letters that occur in the drawing."""
    used = " ".join(f"{part.inside} {part.output}" for part in parts)
    meanings = {
        "C": f"C {config.emb_dim:,} wide",
        "H": f"H {config.n_heads} heads",
        "G": f"G {config.n_kv_heads} key-value heads",
        "D": f"D {config.head_size} a head",
        "V": f"V {config.vocab_size:,} tokens",
    }
    words = [word for letter, word in meanings.items() if f" {letter}," in used or f" {letter})" in used]
    return ",   ".join(["B texts", f"T {config.context_length:,} tokens of context", *words])
