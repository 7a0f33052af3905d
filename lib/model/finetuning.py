"""Which weights a training changes: all of them, those next to the output, or none, but adapters."""

from typing import Any, Mapping

import torch

from lib.errors import UsageError
from lib.model.gpt import GPT
from lib.model.language_model import LanguageModel
from lib.model.lora import add_adapters


def select_trained(model: LanguageModel, options: Mapping[str, Any]) -> None:
    """Freeze the weights of `model` that a training with the `options` of section train leaves as they are.

    With finetune=lora the model has adapters from here on, drawn from the seed. UsageError if it cannot be trained so.
    """
    if options["finetune"] == "last_block":
        _freeze_below_last_block(model)
    elif options["finetune"] == "lora":
        targets = None if options["lora_targets"] == "all" else options["lora_targets"].split(",")
        generator = torch.Generator().manual_seed(options["seed"])
        add_adapters(model, options["lora_rank"], options["lora_alpha"], targets, generator)
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
