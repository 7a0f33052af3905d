"""Many short answers at once, as a training that learns from its own answers needs them.

The engine (`lib.generate.engine`) keeps a KV cache for each text, which pays where texts are long. Here a few dozen tokens are
computed again for each new one, but all texts go through the model as one batch, and all their tokens are drawn as one.

N texts, T time, V vocabulary
"""

from typing import Sequence

import torch
from torch import Tensor

from lib.model.language_model import LanguageModel


@torch.inference_mode()
def short_answers(
    model: LanguageModel, prompts: Sequence[list[int]], length: int, end: int, device: torch.device, draws: Tensor | None = None
) -> list[list[int]]:
    """An answer to each prompt: up to `length` tokens, the last of which is `end` if the model has come to it.

    draws: (N, length), numbers from 0 to 1, of which each chooses a token by the model's probabilities; None for the most
    likely tokens. The model's training mode is left as it was.
    """
    was_training = model.training
    model.eval()
    rows = torch.arange(len(prompts), device=device)
    sizes = torch.tensor([len(prompt) for prompt in prompts], device=device)
    ids = torch.zeros(len(prompts), int(sizes.max()) + length, dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt, device=device)
    starts, writing = sizes.tolist(), torch.ones_like(rows, dtype=torch.bool)
    for step in range(length):
        x = model.features(ids[:, : int(sizes.max())])[rows, sizes - 1]
        logits = model.out_head(x).float()  # (N, V)
        chosen = logits.argmax(dim=1) if draws is None else choose(logits, draws[:, step].to(device))
        ids[rows[writing], sizes[writing]] = chosen[writing]
        sizes += writing
        writing &= chosen != end
        if not writing.any():
            break
    model.train(was_training)
    return [row[start:stop] for row, start, stop in zip(ids.tolist(), starts, sizes.tolist(), strict=True)]


def choose(logits: Tensor, draws: Tensor) -> Tensor:
    """The token of each row of `logits`, (N, V), in whose part of the interval from 0 to 1 its draw falls: (N,)."""
    ends = logits.double().softmax(dim=1).cumsum(dim=1)
    return (ends <= draws[:, None].double() * ends[:, -1:]).sum(dim=1).clamp(max=logits.shape[1] - 1)
