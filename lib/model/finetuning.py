"""Which weights a training changes: all of them, those next to the output, or none, but adapters."""

from dataclasses import dataclass

import torch

from lib.artifact.record import Count, Positive
from lib.errors import UsageError
from lib.model.gpt import GPT
from lib.model.language_model import LanguageModel
from lib.model.lora import add_adapters


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """What of section train says which weights are trained; the defaults are for runs without it."""

    finetune: str = "all"
    lora_rank: Positive = 1
    lora_alpha: float = 1.0
    lora_targets: str = "all"
    seed: Count = 0


def select_trained(model: LanguageModel, options: Finetuning) -> None:
    """Freeze the weights of `model` that a training with these `options` leaves as they are.

    With finetune=lora the model has adapters from here on, drawn from the seed. UsageError if it cannot be trained so.
    """
    if options.finetune == "last_block":
        _freeze_below_last_block(model)
    elif options.finetune == "lora":
        targets = None if "all" in options.lora_targets.split(",") else options.lora_targets.split(",")
        add_adapters(model, options.lora_rank, options.lora_alpha, targets, torch.Generator().manual_seed(options.seed))
        if model.config.n_classes:  # a head that was just drawn must be learned
            model.out_head.requires_grad_(True)


def _freeze_below_last_block(model: LanguageModel) -> None:
    """Only the last block, the final norm and the head are trained; a tied head is the embedding, and frozen with it."""
    if not isinstance(model, GPT):
        raise UsageError(f"train.finetune=last_block needs a stack of blocks, model.kind=gpt, not {model.config.kind}")
    model.requires_grad_(False)
    is_tied = model.config.tie_weights and not model.config.n_classes
    trained = [model.blocks[-1], model.final_norm, *([] if is_tied else [model.out_head])]
    for module in trained:
        module.requires_grad_(True)
