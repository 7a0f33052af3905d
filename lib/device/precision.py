"""How many bits the products of a training step are computed with: float32, or 16 where the device is faster at them.

Weights, gradients and moments are float32 always; the products' factors are rounded on their way in (Micikevicius et
al. 2018, Mixed precision training).
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

_STEPS_BEFORE_DOUBLING = 1000


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The type called `name`; "auto" is bfloat16 on a CUDA device that has it, float16 on an older one, else float32."""
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
    """By what the loss of float16 is multiplied before the backward pass, and since which step.

    float16 has no numbers between 0 and 6e-8; gradients, which are that small, are lifted into its range and set down
    again before they are used (Micikevicius et al. 2018, 3.2). Where that was too high, the gradients are not finite.
    """

    value: float = 65536.0
    since: int = 0

    def lower(self, step: int) -> "LossScale":
        """Half of it, but no less than 1, after gradients that were not finite."""
        return LossScale(max(1.0, self.value / 2), step)

    def after(self, step: int) -> "LossScale":
        """Twice as much after a thousand good steps in a row."""
        return LossScale(self.value * 2, step) if step - self.since >= _STEPS_BEFORE_DOUBLING else self
