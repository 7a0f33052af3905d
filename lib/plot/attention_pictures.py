"""Pictures of the book about attention, each computed by the code that its page explains.

B batch, T time, C embedding, H heads, G key and value heads, D head size
"""

import math

import torch
from matplotlib.figure import Figure

from lib.config.params import load_params, resolve_config
from lib.config.schema import Config, GenerateConfig
from lib.generate.batch import TokenSequence
from lib.generate.engine import generate_tokens
from lib.model.attention import MultiHeadAttention
from lib.model.language_model import LanguageModel
from lib.model.positions import Rotary
from lib.model.registry import build_model
from lib.model.self_attention import BareSelfAttention
from lib.plot.drawing import BLUE, PALE, arrow, canvas, cell, table, tint, write
from lib.plot.style import GRAY


@torch.no_grad()
def scores_figure(config: Config) -> Figure:
    """Self-attention of two tokens: queries and keys, scores, weights, and the weighted sum of the values."""
    x = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    bare = BareSelfAttention(emb_dim=3, head_size=2)
    bare.W_query.copy_(torch.tensor([[0.0, 2.0], [1.0, 0.0], [-1.0, 0.0]]))
    bare.W_key.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    bare.W_value.copy_(torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 4.0]]))
    queries, keys, values = x @ bare.W_query, x @ bare.W_key, x @ bare.W_value
    scores = queries @ keys.T / math.sqrt(2)
    weights = torch.softmax(scores, dim=-1)
    figure, axes = canvas(config.plot, 17.5, 9.4)
    # keys above the scores, queries left of them: each score stands where its row and its column meet
    write(axes, 4.6, 0.5, "keys, transposed")
    table(axes, 3.6, 1, keys.T)
    write(axes, 1.3, 3.5, "queries")
    table(axes, 0.3, 4, queries, faces=PALE, name="(T, D)")
    table(axes, 3.6, 4, scores, name="scores / √D")
    write(axes, 6.5, 4.5, "softmax")
    arrow(axes, (5.8, 5), (7.2, 5))
    for row, numbers in enumerate(weights.tolist()):
        for column, weight in enumerate(numbers):
            cell(axes, 7.4 + 1.2 * column, 4 + row, f"{weight:.3f}", face=tint(BLUE, weight), width=1.2)
    write(axes, 8.6, 6.45, "weights (T, T)", color=GRAY)
    write(axes, 10.2, 5, "·")
    write(axes, 11.6, 3.5, "values")
    table(axes, 10.6, 4, values, name="(T, D)")
    write(axes, 13.1, 5, "=")
    write(axes, 15.1, 3.5, "output")
    table(axes, 13.6, 4, bare(x), faces=PALE, width=1.5, name="(T, D)")
    first, (v0, v1) = weights[0].tolist(), values.tolist()
    sums = [
        f"{first[0]:.3f} · {v0[place]:.0f} + {first[1]:.3f} · {v1[place]:.0f} = {bare(x)[0, place]:.2f}" for place in (0, 1)
    ]
    write(
        axes, 8.75, 7.7, f"token 0: the query (0, 2) fits the key (0, 1) of token 1: {first[1]:.1%} of the weight", color=GRAY
    )
    write(axes, 8.75, 8.6, "its output:  " + ",   ".join(sums), color=GRAY)
    return figure


@torch.no_grad()
def heads_figure(config: Config) -> Figure:
    """What `view` and `transpose` do to the queries: (T, C) to H heads of (T, D), and back after attention."""
    T, H, D = 3, 3, 2
    flat = torch.arange(T * H * D).view(1, T, H * D)
    heads = flat.view(1, T, H, D).transpose(1, 2)[0]  # (H, T, D)
    figure, axes = canvas(config.plot, 22, 12.6)
    faces = PALE[:H]

    def side_by_side(left: float) -> None:
        for row, numbers in enumerate(flat[0].tolist()):
            for column, value in enumerate(numbers):
                cell(axes, left + column, 4.5 + row, str(value), face=faces[column // D])
        write(axes, left + H * D / 2, 4.5 + T + 0.5, "(T, C)", color=GRAY)

    write(axes, 3.4, 3.9, "queries, H heads side by side")
    side_by_side(0.5)
    write(axes, 10, 0.5, "view, transpose: (H, T, D)")
    for head, rows in enumerate(heads.tolist()):
        top = 1 + 4 * head
        arrow(axes, (6.8, 6), (8.7, top + T / 2))
        for row, numbers in enumerate(rows):
            for column, value in enumerate(numbers):
                cell(axes, 9 + column, top + row, str(value), face=faces[head])
        write(axes, 11.6, top + T / 2, f"head {head}", ha="left")
        arrow(axes, (13.2, top + T / 2), (15.2, 6))
    write(axes, 18.4, 3.9, "transpose, reshape: side by side")
    side_by_side(15.5)
    return figure


def groups_figure(config: Config) -> Figure:
    """Which query heads share which heads of keys and values: multi-head, grouped-query and multi-query attention."""
    H = 4
    figure, axes = canvas(config.plot, 22, 6.6)
    for panel, (G, name) in enumerate([(4, "multi-head: G = H"), (2, "grouped-query: G = 2"), (1, "multi-query: G = 1")]):
        attention = MultiHeadAttention(emb_dim=2 * H, n_heads=H, context_length=1, n_kv_heads=G)
        groups = attention._shared(torch.arange(G).view(1, G, 1, 1)).flatten().tolist()  # of each query head
        left = 1.2 + 7.2 * panel
        write(axes, left + 2.7, 0.5, name, bold=True)
        for group in range(G):
            x = left + sum(1.4 * head for head in range(H) if groups[head] == group) / groups.count(group)
            cell(axes, x, 1.2, f"k, v {group}", face=PALE[group], width=1.2)
        for head, group in enumerate(groups):
            x = left + sum(1.4 * other for other in range(H) if groups[other] == group) / groups.count(group)
            cell(axes, left + 1.4 * head, 4.4, f"q {head}", face=PALE[group], width=1.2)
            arrow(axes, (left + 1.4 * head + 0.6, 4.3), (x + 0.6, 2.3))
        write(axes, left + 2.7, 6, f"KV cache: {G} of {H} heads", color=GRAY)
    return figure


def rotary_figure(config: Config) -> Figure:
    """The hands of rotary positions: how far each pair of numbers has rotated at each position."""
    T, pairs = 7, 4
    hand = torch.zeros(1, 1, T, 2 * pairs)
    hand[..., :pairs] = 1  # each pair is (1, 0)
    rotated = Rotary(context_length=T, head_size=2 * pairs)(hand)[0, 0]  # (T, D)
    figure, axes = canvas(config.plot, 22, 12.6)
    for position in range(T):
        write(axes, 6 + 2.4 * position, 0.6, str(position), color=GRAY)
        for pair in range(pairs):
            x, y = 6 + 2.4 * position, 2.4 + 2.7 * pair
            axes.plot(*_circle(x, y, 1.05), color=GRAY, linewidth=0.8)
            cosine, sine = rotated[position, pair].item(), rotated[position, pair + pairs].item()
            arrow(axes, (x, y), (x + cosine, y - sine), color=BLUE)
    write(axes, 2.2, 0.6, "position", color=GRAY)
    for pair in range(pairs):
        angle = math.atan2(rotated[1, pair + pairs].item(), rotated[1, pair].item())
        write(axes, 2.2, 2.1 + 2.7 * pair, f"pair {pair}")
        write(axes, 2.2, 2.8 + 2.7 * pair, f"{angle:.3g} rad per step", color=GRAY)
    return figure


def _circle(x: float, y: float, radius: float) -> tuple[list[float], list[float]]:
    steps = [2 * math.pi * step / 48 for step in range(49)]
    return [x + radius * math.cos(step) for step in steps], [y + radius * math.sin(step) for step in steps]


def cache_figure(config: Config) -> Figure:
    """The positions that each step of generation computes, without a KV cache and with it."""
    prompt, steps = [7, 1, 4], 5
    small = resolve_config(load_params(), "debug", ["model.vocab_size=256", f"generate.max_new_tokens={steps}"])
    model = build_model(small.model).eval()
    model.initialize(torch.Generator().manual_seed(1))
    figure, axes = canvas(config.plot, 23, 8.4)
    for left, title, cached in ((0.6, "without a cache", False), (12.2, "with it", True)):
        counts = _computed_positions(model, prompt, small.generate, cached=cached)
        write(axes, left + 6, 0.5, f"{title}: {sum(counts)} positions computed", bold=True)
        for step, count in enumerate(counts):
            length = len(prompt) + step
            write(axes, left + 0.9, 1.5 + 1.2 * step, f"step {step + 1}", color=GRAY)
            for position in range(length):
                computed = position >= length - count
                cell(axes, left + 2.4 + position, 1 + 1.2 * step, face=tint(BLUE, 0.75 if computed else 0.12))
    write(axes, 11.5, 7.6, "dark: computed in this step   light: keys and values from the cache", color=GRAY)
    return figure


def _computed_positions(model: LanguageModel, prompt: list[int], config: GenerateConfig, *, cached: bool) -> list[int]:
    """How many positions the model computes in each step of a generation."""
    counts: list[int] = []
    hook = model.get_submodule("tok_emb").register_forward_pre_hook(lambda _, ids: counts.append(ids[0].shape[1]))
    for _ in generate_tokens(model, [TokenSequence(prompt, config)], torch.device("cpu"), cached=cached):
        pass
    hook.remove()
    return counts
