"""What a training would cost, estimated without doing any of it."""

from typing import Any

import torch

from lib import device as devices
from lib import model
from lib.config import ModelConfig, TrainConfig
from lib.model.maps import attentions

#: A training step's share of the rate of a bare 1024² matrix product: bench/cost.py finds estimates 1.0 to 1.4 times the truth.
EFFICIENCY = 0.5

_FLOAT = 4  # bytes of a float32


def plan(model_config: ModelConfig, config: TrainConfig, device: torch.device, val_tokens: int) -> dict[str, Any]:
    """Parameters, tokens, tokens a parameter, steps, seconds and bytes of memory of a training.

    Arithmetic: 6 operations a token for each weight in a matrix, forward and backward (Kaplan et al. 2020, 2.1), and
    12·layers·C·T for attention; a third of it for validation. Memory: weights, gradients and two moments, and the
    activations of one micro-batch with three copies of its logits.
    """
    built = model.build(model_config, "meta")
    parameters = model.count(built)
    T, C, V = model_config.context_length, model_config.emb_dim, built.vocab_size
    layers = len(attentions(built))
    tokens = config.max_steps * config.batch_size * T
    validations = 2 + (config.max_steps - 1) // config.eval_interval if config.eval_interval else 2
    operations = model.operations(built) * (tokens + val_tokens * validations / 3)
    rows = config.batch_size // config.grad_accum_steps * T
    activations = rows * C * _ACTIVATIONS * layers
    if model_config.attention == "explicit":
        activations += 3 * rows * T * model_config.n_heads * layers
    return {
        "parameters": parameters,
        "tokens": tokens,
        "tokens_per_parameter": tokens / parameters,
        "steps": config.max_steps,
        "seconds": operations / (devices.matmul_rate(device) * EFFICIENCY),
        "memory_bytes": _BASE + _FLOAT * (4 * parameters + activations + 3 * rows * V),
    }


_ACTIVATIONS = 30  # rows of C numbers kept a token and block for the backward pass, the 4C-wide ones counted as four
_BASE = 300 << 20  # Python and PyTorch themselves
