"""What a training would cost, estimated without doing any of it."""

from dataclasses import asdict, replace
from typing import Any

import torch

from lib.artifact.record import from_json
from lib.config.model import ModelConfig
from lib.config.schema import TrainConfig
from lib.device.hardware import matmul_rate, pass_rate
from lib.device.precision import choose_precision
from lib.model.attention import materializes_weights
from lib.model.finetuning import Finetuning, select_trained
from lib.model.language_model import LanguageModel
from lib.model.loss import LOGITS_AT_ONCE
from lib.model.maps import attentions
from lib.model.registry import build_model, count_operations, count_parameters, matmul_operations
from lib.run.weights import trained_weights
from lib.train.muon import ITERATIONS
from lib.train.optimizer import parameter_groups

# Fitted to measured steps of three configs (`make bench` tells how near it comes); all in passes over float32 numbers,
# one pass being read, changed, written back.
_BLOCK_PASSES = 60  # a step's work besides products, for each of the T·C numbers that a block passes on
_LOGIT_PASSES = 3  # softmax and its gradient, for each logit
_WEIGHT_PASSES = 4  # gradient, its norm, AdamW, for each weight
_BLOCK_SECONDS = 0.007  # what a block's operations take however few numbers they have, forward and backward, on a CPU
_ATTENTION = 0.5  # attention's share of the rate of plain products

#: From which speedup on bfloat16 is worth its less exact numbers.
WORTHWHILE_SPEEDUP = 1.2

_FLOAT = 4  # bytes of a float32
_KEPT = 30  # rows of C numbers kept a token and block for the backward pass, the 4C-wide ones counted as four
_BASE = 300 << 20  # bytes: Python and PyTorch themselves


def estimate_training(
    model_config: ModelConfig, config: TrainConfig, device: torch.device, val_tokens: int, seen_tokens: int | None = None
) -> dict[str, Any]:
    """Parameters, tokens, tokens a parameter, steps, seconds and bytes of memory of a training by one process, and
    `bfloat16_speedup`: how much faster it would be with bfloat16 products, if they are float32 now; below 1, it is slower.

    Seconds: the products' arithmetic at the rate of such products, measured here and now, and the rest by how many numbers it
    passes over, at a rate measured likewise; a third of it for each token of a validation. Memory: weights, gradients
    and the optimizer's moments, these only of what `train.finetune` trains, and the activations of one micro-batch with its
    logits. `seen_tokens`: how many tokens of the vocabulary the training text has, if the others share a row.
    """
    model = build_model(model_config, "meta")
    trained = build_model(model_config, "meta")
    select_trained(trained, from_json(Finetuning, asdict(config)))
    untrained = sum(weight.numel() for weight in trained.parameters() if not weight.requires_grad)
    if (
        config.finetune == "all"
        and seen_tokens
        and seen_tokens < model.vocab_size
        and config.unseen_rows == "shared"
        and config.head_init != "random"
    ):
        trained = build_model(replace(model_config, vocab_size=seen_tokens + 1), "meta")
        untrained = count_parameters(model)
    parameters, moved = count_parameters(model), sum(weight.numel() for weight in trained_weights(trained).values())
    T, C, V = model_config.context_length, model_config.emb_dim, trained.vocab_size
    layers = len(attentions(model))
    backward = 1 if config.finetune == "last_block" else layers
    tokens = config.max_steps * config.batch_size * T
    rows = config.batch_size // config.grad_accum_steps * T
    validations = 2 + (config.max_steps - 1) // config.eval_interval if config.eval_interval else 2

    precision = choose_precision(config.precision, device)
    rates = {
        dtype: matmul_rate(device, (min(rows, 2048), C, 4 * C), dtype) for dtype in {precision, torch.float32, torch.bfloat16}
    }
    passes = pass_rate(device)

    def token_seconds(model: LanguageModel, rate: float) -> float:
        products = matmul_operations(model)
        seconds = products / rate + (count_operations(model) - products) / (rate * _ATTENTION)
        return seconds + (_BLOCK_PASSES * layers * C + _LOGIT_PASSES * model.vocab_size) / passes

    a_piece = _BLOCK_SECONDS * layers if device.type == "cpu" else 0.0
    update = _WEIGHT_PASSES * moved / passes + _orthogonalising(trained, config) / rates[torch.float32]
    a_step = a_piece * config.grad_accum_steps + update
    validating = token_seconds(model, rates[precision]) * val_tokens * validations / 3

    def seconds(dtype: torch.dtype) -> float:
        return token_seconds(trained, rates[dtype]) * tokens + validating + a_step * config.max_steps

    kept = (
        rows * C * _KEPT * backward
        + min(rows * V, LOGITS_AT_ONCE)
        + V * C * trained.get_parameter("out_head.weight").requires_grad
    )
    if materializes_weights(model_config.attention_impl == "fused", model_config.drop_rate, device):
        kept += 3 * rows * T * model_config.n_heads * backward
    return {
        "parameters": parameters,
        "tokens": tokens,
        "tokens_per_parameter": tokens / parameters,
        "steps": config.max_steps,
        "seconds": seconds(precision),
        "bfloat16_speedup": seconds(precision) / seconds(torch.bfloat16),
        "memory_bytes": _BASE + _FLOAT * (4 * moved + untrained + kept),
    }


def _orthogonalising(model: LanguageModel, config: TrainConfig) -> float:
    """Muon's arithmetic a step: two products with the whole matrix, and for each iteration four of its short side's square."""
    if config.optimizer != "muon":
        return 0.0
    shapes = [sorted(weight.shape) for weight in parameter_groups(model, config)["matrices"]["params"]]
    return sum(4 * short**2 * long + 8 * ITERATIONS * short**3 for short, long in shapes)


def group_step_seconds(
    batch: float, update: float, parameters: int, processes: int, bytes_per_second: float, cores: int = 1 << 30
) -> float:
    """Seconds of a step with several `processes`; one alone takes `batch` for loss and gradients, `update` for the weights.

    Each computes its share of the batch, where there are `cores` enough, sends and receives in a ring 2(n - 1)/n of all
    gradients (Patarasuk and Yuan 2009), and updates all weights itself. Sums are made while gradients of earlier layers
    are still computed, so this is what it takes at most.
    """
    return (
        batch / min(processes, cores)
        + update * max(1, processes / cores)
        + 2 * (processes - 1) / processes * _FLOAT * parameters / bytes_per_second
    )
