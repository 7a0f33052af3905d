"""How far a copy of a model, with rounded weights, is from the model itself, on texts that the model writes."""

from typing import Any

import numpy as np
import torch

from lib.config.schema import GenerateConfig
from lib.generate.batch import TokenSequence
from lib.generate.engine import generate_tokens
from lib.model.language_model import LanguageModel
from lib.tokenizer.base import Tokenizer

_TEXTS, _LENGTH = 4, 64


@torch.inference_mode()
def divergence(model: LanguageModel, copy: LanguageModel, tokenizer: Tokenizer) -> dict[str, Any]:
    """How well both predict texts that `model` itself writes: expected bits/byte, and how many more `copy` needs.

    Expected over all next tokens, not those that were written alone: then the difference is the Kullback-Leibler divergence
    of the two predictions, which is never negative, and a few hundred tokens are enough.
    """
    length = min(_LENGTH, model.context_length)
    prompt = tokenizer.default_prompt()[-1:]
    sequences = [TokenSequence(prompt, _sampling(seed, length - 1)) for seed in range(_TEXTS)]
    if length > 1:
        for _ in generate_tokens(model, sequences, torch.device("cpu")):
            pass
    ids = torch.tensor([sequence.ids for sequence in sequences])  # (4, T)
    written = int(tokenizer.byte_lengths()[ids[:, 1:].numpy()].sum())
    ours, theirs = (network(ids)[:, :-1].double().log_softmax(-1) for network in (model, copy))
    bits = [float(-(ours.exp() * logprobs).sum()) / np.log(2) / max(written, 1) for logprobs in (ours, theirs)]
    return {"tokens_of_its_own": ids[:, 1:].numel(), "bits_per_byte": bits[0], "more_bits_per_byte": bits[1] - bits[0]}


def _sampling(seed: int, tokens: int) -> GenerateConfig:
    everything: dict[str, Any] = {"top_k": None, "top_p": None, "min_p": None, "repetition_penalty": 1.0}
    return GenerateConfig(prompt=None, max_new_tokens=tokens, temperature=1.0, seed=seed, **everything)
