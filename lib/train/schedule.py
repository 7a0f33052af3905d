"""The learning rate by step."""

import math

from lib.config.schema import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of step `step` (from 0): a linear warmup, then a decay to `min_lr_ratio` of the peak.

    The decay is half a cosine (Loshchilov and Hutter 2017), a straight line (Bergsma et al. 2025), or 1/√step, which does not
    depend on `max_steps` (Vaswani et al. 2017, 5.3). A warmup longer than a third of a short run is shortened to that third.
    """
    warmup = min(config.warmup_steps, config.max_steps // 3)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "inverse_sqrt":
        return config.learning_rate * max(config.min_lr_ratio, math.sqrt(max(1, warmup) / (step + 1)))
    progress = (step - warmup) / max(1, config.max_steps - warmup)
    level = 1 - progress if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * (config.min_lr_ratio + (1 - config.min_lr_ratio) * level)
