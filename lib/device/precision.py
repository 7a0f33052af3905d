"""Mixed precision: matrix products of a training step in float32, or in 16 bits where the device is faster with them.

Weights, gradients and optimizer moments are always float32; only the factors of products are rounded (Micikevicius et
al. 2018, Mixed precision training).
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

_STEPS_BEFORE_DOUBLING = 1000


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The type called `name`; "auto" is bfloat16 on a CUDA device that supports it, float16 on an older one, else float32."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Around a forward pass: products in `dtype`, sums and norms in float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


@dataclass(frozen=True)
class LossScale:
    """The factor of the loss in float16 before the backward pass, and the step since which it holds.

    float16 has no numbers between 0 and 6e-8; gradients, which are that small, are scaled into its range, and back
    before they are used (Micikevicius et al. 2018, 3.2). If the factor is too large, the gradients are not finite.
    """

    value: float = 65536.0
    since: int = 0

    def lower(self, step: int) -> "LossScale":
        """Half the factor, but at least 1, after gradients that were not finite."""
        return LossScale(max(1.0, self.value / 2), step)

    def after(self, step: int) -> "LossScale":
        """Twice the factor after a thousand finite steps in a row."""
        return LossScale(self.value * 2, step) if step - self.since >= _STEPS_BEFORE_DOUBLING else self
