"""Pictures of the book about texts and vectors, each computed by the code that its page explains.

B batch, T time, C embedding, V vocabulary
"""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lib.chat.messages import Message
from lib.chat.template import ChatML, encode_segments
from lib.config.schema import Config, PlotConfig
from lib.data.description import count_windows
from lib.generate.sampling import keep_min_p, keep_top_k, keep_top_p, temperature_scaled
from lib.model.causal_attention import causal_mask
from lib.model.layers import Embedding
from lib.model.lora import Adapter
from lib.model.norm import layer_norm
from lib.model.packing import Packing
from lib.plot.drawing import BLUE, ORANGE, PALE, SIZE, WHITE, arrow, canvas, cell, table, tint, write
from lib.plot.style import GRAY, blank_figure, plain_axes
from lib.tokenizer.bpe import BPETokenizer
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.extended import with_special_tokens


def merges_figure(config: Config) -> Figure:
    """A word cut into tokens after each merge that byte-pair encoding learns from it."""
    text = "aaabdaaabac"
    rows = [BPETokenizer.train([[text]], vocab_size=256 + merges + 1) for merges in range(4)]
    figure, axes = canvas(config.plot, len(text) + 7, 2 * len(rows) - 0.4)
    for row, tokenizer in enumerate(rows):
        y, x = 0.3 + 2 * row, 4.0
        ids = tokenizer.encode(text)
        new = 256 + row - 1
        if row:
            ids_before = rows[row - 1].encode(text)
            left, right = _pair(ids_before, ids, new)
            pieces = [rows[row - 1].token_bytes(id).decode() for id in (left, right)]
            write(axes, 0.3, y + 0.5, f"{new} = {pieces[0]} + {pieces[1]}", ha="left")
        else:
            write(axes, 0.3, y + 0.5, "bytes", ha="left")
        for id in ids:
            piece = tokenizer.token_bytes(id).decode()
            cell(axes, x, y, piece, face=PALE[id - 256] if id >= 256 else WHITE, width=len(piece))
            if row < len(rows) - 1:
                arrow(axes, (x + len(piece) / 2, y + 1.1), (x + len(piece) / 2, y + 1.9))
            x += len(piece)
        write(axes, x + 0.4, y + 0.5, f"{len(ids)} tokens", ha="left", color=GRAY)
    return figure


def _pair(before: list[int], after: list[int], new: int) -> tuple[int, int]:
    """The two ids of `before` that stand where `after` first has the id `new`."""
    place = after.index(new)
    return before[place], before[place + 1]


def lookup_figure(config: Config) -> Figure:
    """Rows of the token table, looked up by ids, plus the rows of the position table."""
    ids = torch.tensor([2, 0, 2])
    tokens, positions = Embedding(3, 2), Embedding(3, 2)
    with torch.no_grad():
        tokens.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        positions.weight.copy_(torch.tensor([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]))
        rows, places = tokens(ids), positions(torch.arange(3))
    figure, axes = canvas(config.plot, 17, 5.2)
    top = 1.2
    write(axes, 1.5, 0.6, "ids")
    write(axes, 5, 0.6, "token table")
    for row, id in enumerate(ids.tolist()):
        cell(axes, 1, top + row, str(id), face=PALE[id])
        write(axes, 0.6, top + row + 0.5, str(row), color=GRAY)
        arrow(axes, (2.1, top + row + 0.5), (3.5, top + id + 0.5))
        write(axes, 3.75, top + row + 0.5, str(row), color=GRAY)
    table(axes, 4, top, tokens.weight.detach(), faces=PALE, name="(V, C)")
    for x, sign in ((6.75, "→"), (9.75, "+"), (12.75, "=")):
        write(axes, x, top + 1.5, sign)
    write(axes, 8.5, 0.6, "rows of the ids")
    table(axes, 7.5, top, rows, faces=[PALE[id] for id in ids.tolist()], name="(T, C)")
    write(axes, 11.5, 0.6, "positions")
    table(axes, 10.5, top, places, name="(T, C)")
    write(axes, 14.7, 0.6, "x")
    table(axes, 13.5, top, rows + places, faces=[PALE[id] for id in ids.tolist()], width=1.2, name="(T, C)")
    return figure


def windows_figure(config: Config) -> Figure:
    """Windows of four inputs and the targets, one further, from a text: next to each other, and overlapping by half."""
    text, T = "To be, or not", 4
    strides = {stride: count_windows(len(text), T, stride) for stride in (T, T // 2)}
    figure, axes = canvas(config.plot, len(text) + 8, 0.4 + sum(1.7 + 1.75 * windows for windows in strides.values()))
    y = 0.4
    for stride, windows in strides.items():
        write(axes, 0.3, y + 0.5, f"stride {stride}", ha="left", bold=True)
        for place, character in enumerate(text):
            cell(axes, 4 + place, y, character)
        y += 1.3
        for window in range(windows):
            start = window * stride
            write(axes, 0.3, y + 0.4, f"window {window}", ha="left", color=GRAY)
            for place in range(start, start + T):
                cell(axes, 4 + place, y, text[place], face=PALE[0], height=0.8)
                cell(axes, 4 + place + 1, y + 0.8, text[place + 1], face=PALE[1], height=0.8)
            write(axes, 4 + start + T + 1.3, y + 0.4, "inputs", ha="left")
            write(axes, 4 + start + T + 1.3, y + 1.2, "targets", ha="left")
            y += 1.75
        y += 0.4
    return figure


def norm_figure(config: Config) -> Figure:
    """Four vectors before and after LayerNorm."""
    x = torch.tensor([[6.0, 0.0, 8.0, 6.0], [18.0, 9.0, 21.0, 18.0], [-6.0, -4.0, -5.0, -9.0], [1.0, 2.0, 3.0, 30.0]])
    scale, shift = torch.ones(4), torch.zeros(4)
    figure = blank_figure(config.plot, down=0.7)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, rows, title in zip(panels, (x, layer_norm(x, scale, shift, 1e-5)), ("before", "after"), strict=True):
        for number, row in enumerate(rows):
            low, high = row.min().item(), row.max().item()
            axes.plot([low, high], [number, number], color=GRAY, linewidth=0.8)
            axes.plot(row.tolist(), [number] * 4, "o", color=BLUE, markersize=7, alpha=0.7)
            axes.plot(row.mean().item(), number + 0.28, "^", color=ORANGE, markersize=7)
        axes.set_title(title, fontsize=11)
        axes.set_yticks(range(4), [f"vector {number}" for number in range(4)])
        axes.set_ylim(3.6, -0.5)
        plain_axes(axes)
    figure.legend(
        [panels[0].lines[1], panels[0].lines[2]], ["its four numbers", "their mean"], loc="outside lower center", ncols=2
    )
    return figure


def sampling_figure(config: Config) -> Figure:
    """Probabilities of four tokens at three temperatures, and under three filters."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    cases = {
        "temperature 1": logits,
        "temperature 0.5: sharper": temperature_scaled(logits, 0.5),
        "temperature 2: flatter": temperature_scaled(logits, 2.0),
        "top-k 2": keep_top_k(logits, 2),
        "top-p 0.85": keep_top_p(logits, 0.85),
        "min-p 0.1": keep_min_p(logits, 0.1),
    }
    before = torch.softmax(logits, dim=-1).tolist()
    figure = blank_figure(config.plot)
    for axes, (title, kept) in zip(figure.subplots(2, 3, sharex=True, sharey=True).flat, cases.items(), strict=True):
        for token, (p, was) in enumerate(zip(torch.softmax(kept, dim=-1).tolist(), before, strict=True)):
            axes.bar(token, was, fill=False, edgecolor=GRAY, linestyle=":", width=0.9)
            axes.bar(token, p, color=BLUE, width=0.7)
            axes.text(token, max(p, was) + 0.03, f"{p:.3f}" if p else "removed", ha="center", fontsize=7.5)
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(4))
        axes.set_ylim(0, 1)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("token", fontsize=9)
    figure.supylabel("probability; dotted: at temperature 1", fontsize=9)
    return figure


def lora_figure(config: Config) -> Figure:
    """A matrix of a block, and its adapter, to scale."""
    C, rank = config.model.emb_dim, config.train.lora_rank
    adapter = Adapter(C, C, rank, config.train.lora_alpha)
    numbers = {name: f"{tuple(weight.shape)}: {weight.numel():,} numbers" for name, weight in adapter.named_parameters()}
    side = 7.0
    narrow = side * rank / C
    figure, axes = canvas(config.plot, 20, 10)
    cell(axes, 1, 1.4, f"W ({C}, {C}): {C * C:,} numbers", width=side, height=side, face=tint(BLUE, 0.15))
    write(axes, 1 + side / 2, 0.8, "frozen", bold=True)
    write(axes, 9.2, 1.4 + side / 2, "+", bold=True)
    write(axes, 13.7, 0.8, "trained", bold=True)
    cell(axes, 10.4, 1.4, width=narrow, height=side, face=tint(ORANGE, 0.6))
    cell(axes, 11.4, 1.4, width=side, height=narrow, face=tint(ORANGE, 0.6))
    write(axes, 11.4, 2.3, f"A {numbers['A']}", ha="left")
    write(axes, 11.4, 1.4 + side / 2, f"B {numbers['B']}", ha="left")
    fraction = sum(weight.numel() for weight in adapter.parameters()) / (C * C)
    write(
        axes, 10, 9.2, f"A and B are narrow: {fraction:.1%} of the numbers of W; their product B A is as large as W", color=GRAY
    )
    return figure


def packing_figure(config: Config) -> Figure:
    """Two conversations in a window: what is learned, and which position may attend to which."""
    tokenizer = with_special_tokens(BytesTokenizer(), ChatML.special)
    chats = [[Message("user", "2+2?"), Message("assistant", "4.")], [Message("user", "Hi"), Message("assistant", "Hello!")]]
    encoded = [encode_segments(ChatML().segments(messages), tokenizer) for messages in chats]
    learned = torch.tensor([flag for _, flags in encoded for flag in flags])
    texts = torch.tensor([[number for number, (ids, _) in enumerate(encoded) for _ in ids]])
    T = texts.shape[1]
    attends = ~(Packing(texts).others[0, 0] | causal_mask(T))
    return _mask_with_targets(config.plot, attends, learned, [len(ids) for ids, _ in encoded])


def _mask_with_targets(plot: PlotConfig, attends: Tensor, learned: Tensor, lengths: list[int]) -> Figure:
    """The pairs that attend, (T, T), with the learned tokens marked beside the rows, and a name for each conversation."""
    figure = blank_figure(plot, down=1.2)
    axes = figure.add_subplot()
    axes.imshow(attends.float().numpy(), cmap="Blues", vmin=0, vmax=1.4)
    for row in learned.nonzero().flatten().tolist():
        axes.plot([len(learned) + 0.5, len(learned) + 1.5], [row, row], color=ORANGE, linewidth=3.5, solid_capstyle="butt")
    start = 0
    for name, length in enumerate(lengths):
        axes.text(start + length - 1, start + length / 3, f"conversation {name}", ha="right", fontsize=SIZE)
        start += length
        axes.axhline(start - 0.5, color=GRAY, linewidth=0.6)
        axes.axvline(start - 0.5, color=GRAY, linewidth=0.6)
    axes.set_xlim(-0.5, len(learned) + 2)
    axes.set_xlabel("position that is attended to")
    axes.set_ylabel("position that attends")
    axes.set_title("blue: attends   orange: a target of the loss", fontsize=10)
    return figure
