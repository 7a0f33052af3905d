"""Samples during training: what the model writes after the same prompt as it learns."""

from contextlib import suppress

import torch

from lib.config.schema import GenerateConfig, TrainConfig
from lib.device.hardware import derive_seed
from lib.errors import MakegptError
from lib.generate.quantize import InferenceModel
from lib.generate.request import Prompt, Request, complete
from lib.model.language_model import LanguageModel
from lib.run.metrics import StepMetrics
from lib.run.samples import Sample
from lib.tokenizer.base import Tokenizer


class Sampler:
    """Makes the samples of one training. The model in training is not changed, nor are any random numbers
    but those of the sample itself, which depend on (seed, step).
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Prompt, config: TrainConfig, device: torch.device) -> None:
        """All samples continue the `prompt`."""
        self._tokenizer = tokenizer
        self._config = config
        self._device = device
        self._prompt = prompt

    def is_due(self, metrics: StepMetrics) -> bool:
        """Whether there is to be a sample after this step: every `sample_interval` steps, or after each validation."""
        interval = self._config.sample_interval
        if interval is None:
            return metrics.val_loss is not None
        return interval > 0 and (metrics.step % interval == 0 or metrics.step == self._config.max_steps)

    def sample(self, model: LanguageModel, metrics: StepMetrics) -> Sample:
        """The sample of `model` after a step; its text is cut short if the logits are not finite."""
        config = self._config
        sampling = GenerateConfig(
            prompt=config.sample_prompt,
            max_new_tokens=config.sample_tokens,
            temperature=config.sample_temperature,
            top_k=None,
            top_p=None,
            min_p=None,
            repetition_penalty=1.0,
            seed=derive_seed(config.seed, metrics.step),
        )
        request = Request(self._tokenizer, self._prompt, sampling, logprobs=False)
        with suppress(MakegptError):  # a training that diverges reports it at its next step
            # a new inference model for each sample takes milliseconds, and cannot hold older weights
            complete(InferenceModel(model), [request], self._device)
        return Sample(metrics.step, metrics.tokens, self._prompt.text, request.text)
