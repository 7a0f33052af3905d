"""The learning rate by step."""

import math

from lib.config.schema import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """The rate of step `step` (from 0): a linear rise over the warm-up, then half a cosine down to its final share.

    A warm-up longer than a third of a short run is shortened to that third (Loshchilov and Hutter 2017
    for the cosine).
    """
    warmup = min(config.warmup_steps, config.max_steps // 3)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.max_steps - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * (config.min_lr_ratio + (1 - config.min_lr_ratio) * cosine)
