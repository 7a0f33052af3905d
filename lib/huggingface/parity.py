"""A certificate that exported files compute what the model does: its logits compared with an independent implementation.

The implementation is GPT-2's formulas in float64, read from the files by Hugging Face's names: it shares neither the
model's code nor the table of names.

T time, C embedding, H heads, D head size, V vocabulary
"""

import math
from pathlib import Path
from typing import Any, Callable

import numpy as np
import torch
from numpy.typing import NDArray

from lib.artifact.io import read_json
from lib.artifact.tensors import open_safetensors
from lib.errors import MakegptError
from lib.model.language_model import LanguageModel

Numbers = NDArray[np.float64]

PARITY_FILE = "certificate.json"
GREEDY_TOKENS = 64
_TOLERANCE = 1e-3  # of the largest logit; float32 differed from float64 by 1e-6 of it, a wrong formula by all of it


def gpt2_logits(tensor: Callable[[str], Numbers], n_layers: int, n_heads: int, ids: list[int]) -> Numbers:
    """GPT-2 (Radford et al. 2019) by Hugging Face's names, a linear layer's matrix as (in, out): ids (T,) -> logits (T, V)."""

    def linear(x: Numbers, name: str) -> Numbers:
        return x @ tensor(f"{name}.weight") + tensor(f"{name}.bias")

    def norm(x: Numbers, name: str) -> Numbers:
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
        return x * tensor(f"{name}.weight") + tensor(f"{name}.bias")

    T = len(ids)
    mask = np.triu(np.ones((T, T), dtype=bool), 1)
    x = tensor("wte.weight")[ids] + tensor("wpe.weight")[:T]  # (T, C)
    for n in range(n_layers):
        qkv = linear(norm(x, f"h.{n}.ln_1"), f"h.{n}.attn.c_attn")
        q, k, v = (part.reshape(T, n_heads, -1).transpose(1, 0, 2) for part in np.split(qkv, 3, axis=-1))  # (H, T, D)
        scores = np.where(mask, -np.inf, q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))  # (H, T, T)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        heads = weights / weights.sum(axis=-1, keepdims=True) @ v
        x = x + linear(heads.transpose(1, 0, 2).reshape(T, -1), f"h.{n}.attn.c_proj")
        wide = linear(norm(x, f"h.{n}.ln_2"), f"h.{n}.mlp.c_fc")
        wide = 0.5 * wide * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
        x = x + linear(wide, f"h.{n}.mlp.c_proj")
    return norm(x, "ln_f") @ tensor("lm_head.weight").T


def exported_logits(folder: Path, ids: list[int]) -> Numbers:
    """The logits (T, V) that the files in `folder` give for `ids`, one tensor in memory at a time."""
    config = read_json(folder / "config.json")
    with open_safetensors(folder / "model.safetensors", "numpy") as file:

        def tensor(name: str) -> Numbers:
            if name == "lm_head.weight":
                name = "transformer.wte.weight" if config["tie_word_embeddings"] else name
            else:
                name = f"transformer.{name}"
            return np.asarray(file.get_tensor(name), dtype=np.float64)

        with np.errstate(all="ignore"):  # what is not finite shows in the difference
            return gpt2_logits(tensor, config["n_layer"], config["n_head"], ids)


@torch.inference_mode()
def greedy_tokens(model: LanguageModel, ids: list[int], count: int) -> list[int]:
    """The next `count` tokens, each the most likely one."""
    ids = list(ids)
    for _ in range(count):
        ids.append(int(model.next_token_logits(torch.tensor([ids])).argmax()))
    return ids[-count:]


@torch.inference_mode()
def compare_logits(model: LanguageModel, folder: Path, prompt: list[int]) -> dict[str, Any]:
    """The certificate of the files in `folder`, exported from `model`, on its greedy continuation of `prompt`.

    Raises MakegptError if they differ by more than rounding. Prompt and continuation stay within the context.
    """
    prompt = prompt[: (model.context_length + 1) // 2]
    continuation = greedy_tokens(model, prompt, min(GREEDY_TOKENS, model.context_length + 1 - len(prompt)))
    ids = [*prompt, *continuation][:-1]
    ours = model(torch.tensor([ids]))[0].double().numpy()  # (T, V)
    theirs = exported_logits(folder, ids)
    difference, size = float(np.abs(ours - theirs).max()), float(np.abs(ours).max())
    if not difference <= _TOLERANCE * size:  # nan is not
        raise MakegptError(
            f"the exported files do not compute what the model does: logits up to {size:.4g} differ by {difference:.2g}; "
            "nothing was written"
        )
    agreeing, gap = logit_agreement(continuation, theirs[len(prompt) - 1 :])
    return {
        "compared_with": "GPT-2's formulas in float64, read from model.safetensors and config.json",
        "prompt_tokens": prompt,
        "tokens": continuation,
        "largest_logit": size,
        "largest_difference": difference,
        "greedy_tokens": len(continuation),
        "greedy_tokens_that_agree": agreeing,
        "gap_where_they_part": gap,
    }


def logit_agreement(tokens: list[int], logits: Numbers) -> tuple[int, float | None]:
    """How many of the first `tokens` are the best of `logits` (n, V), row by row; if one is not, also the gap between the
    two best logits of its row.
    """
    for n, (id, row) in enumerate(zip(tokens, logits, strict=True)):
        if row.argmax() != id:
            second, best = np.sort(row)[-2:]
            return n, float(best - second)
    return len(tokens), None


def parity_summary(parity: dict[str, Any]) -> str:
    """A certificate in one line."""
    gap = parity["gap_where_they_part"]
    difference = "" if gap is None else f" (then two logits differ by {gap:.2g})"
    return (
        f"largest difference of logits {parity['largest_difference']:.2g}, largest logit {parity['largest_logit']:.3g}; "
        f"greedy tokens that agree: {parity['greedy_tokens_that_agree']} of {parity['greedy_tokens']}{difference}"
    )
