"""A classifier: a GPT whose head gives a logit to each class of texts, computed after the last token of a text.

The body is that of a model of texts, and may begin with its weights. Only the last position has seen the whole text, so only
its features go through the head (Radford et al. 2018, section 3.3; Raschka 2024, section 6.5).

B windows, T time, C embedding, N texts, K classes
"""

import torch
from torch import Tensor

from lib.data.packing import TextWindows
from lib.model.language_model import LanguageModel
from lib.model.packing import Packing


class WindowTensors:
    """`TextWindows` on a device: several texts in each window, each computed as if it were alone."""

    def __init__(self, windows: TextWindows, device: torch.device) -> None:
        self.ids = torch.from_numpy(windows.ids).to(device)
        self.packing = Packing(torch.from_numpy(windows.texts).to(device))
        self.last = torch.from_numpy(windows.last).to(device)


def class_logits(model: LanguageModel, windows: WindowTensors) -> Tensor:
    """The logits of the classes for each text in `windows`: (N, K)."""
    return head_logits(model, model.features(windows.ids, packing=windows.packing), windows.last)


def head_logits(model: LanguageModel, x: Tensor, last: Tensor) -> Tensor:
    """The part of `class_logits` that follows the features: x, (B, T, C), of whose flattened positions `last`, (N,), count."""
    logits: Tensor = model.out_head(x.flatten(0, 1)[last])
    return logits.float()
